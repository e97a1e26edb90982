# Network configuration, version 2, reduced to lines "interface-or-mac word value".
# Interface blocks are told by their indent below "ethernets:"; an address of an interface has a
# prefix length, one of a name server has none.

function indent_of(line) {
  match(line, /^ */)
  return RLENGTH
}

function block_end(  i) {
  for (i = 0; i < count; i++)
    print (mac != "" ? mac : name), lines[i]
  count = 0
  mac = ""
  name = ""
}

function emit(text,  parts, n, i, value) {
  gsub(/[][,"']/, " ", text)
  n = split(text, parts, " ")
  for (i = 1; i <= n; i++) {
    value = parts[i]
    if (value == "-" || value !~ /^[0-9A-Fa-f.:\/]+$/)
      continue
    if (value ~ /\//)
      lines[count++] = "address " value
    else if (list == "nameservers")
      lines[count++] = "nameserver " value
  }
}

{ sub(/[ \t]#.*$/, "") }
/^[ \t]*(#|$)/ { next }

{
  depth = indent_of($0)
  text = substr($0, depth + 1)
}

text ~ /^ethernets:/ { inside = 1; base = depth; key_depth = -1; next }
!inside { next }
depth <= base && text !~ /^-/ { block_end(); inside = 0; next }
key_depth < 0 { key_depth = depth }
depth == key_depth && text !~ /^-/ {
  block_end()
  name = text
  sub(/:.*/, "", name)
  gsub(/["']/, "", name)
  list = ""
  next
}

match(text, /macaddress: *["']?[0-9A-Fa-f:]+/) {
  mac = substr(text, RSTART, RLENGTH)
  sub(/macaddress: *["']?/, "", mac)
  mac = tolower(mac)
  next
}
text ~ /^nameservers:/ { list = "nameservers"; list_depth = depth; next }
list == "nameservers" && depth <= list_depth && text !~ /^-/ { list = "" }
text ~ /^addresses:/ {
  sub(/^addresses: */, "", text)
  if (list != "nameservers")
    list = "addresses"
  emit(text)
  next
}
text ~ /^gateway[46]:/ {
  sub(/^gateway[46]: */, "", text)
  gsub(/["' ]/, "", text)
  lines[count++] = "gateway " text
  list = ""
  next
}
text ~ /^routes:/ { list = "routes"; via = ""; is_default = 0; next }
list == "routes" {
  if (text ~ /^-/) {
    via = ""
    is_default = 0
  }
  if (text ~ /to: *"?(default|0\.0\.0\.0\/0|::\/0)"?/)
    is_default = 1
  if (match(text, /via: *"?[0-9A-Fa-f.:]+/)) {
    via = substr(text, RSTART, RLENGTH)
    sub(/via: *"?/, "", via)
  }
  if (is_default && via != "") {
    lines[count++] = "gateway " via
    via = ""
    is_default = 0
  }
  next
}
text ~ /^-/ && list != "" { emit(text); next }
text !~ /^-/ && list == "addresses" { list = "" }

END { block_end() }
