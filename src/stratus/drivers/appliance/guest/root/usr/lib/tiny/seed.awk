# Meta-data, then user-data, reduced to lines "instance ID", "name HOST" and "key SSH-KEY".
# YAML and JSON alike: of each only the few plain values and key lists that matter here.

function value_of(word, text) {
  if (!match(text, "(^|[{, ])[\"']?" word "[\"']? *: *[\"']?"))
    return ""
  text = substr(text, RSTART + RLENGTH)
  match(text, /^[A-Za-z0-9._:-]*/)
  return substr(text, 1, RLENGTH)
}

function keys_print(text) {
  while (match(text, KEY)) {
    print "key", substr(text, RSTART, RLENGTH)
    text = substr(text, RSTART + RLENGTH)
  }
}

BEGIN {
  KEY = "(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+( [^]\"',}]*)?"
}

{ sub(/\r$/, "") }
FNR == 1 { inside = 0; obeyed = FILENAME ~ /meta-data$/ || /^#cloud-config/ }
!obeyed || /^[ \t]*#/ { next }

FILENAME ~ /meta-data$/ {
  if (instance == "" && (instance = value_of("instance-id", $0)) != "") print "instance", instance
  if (name == "" && (name = value_of("local-hostname", $0)) != "") print "name", name
  list = "public-keys"
}
FILENAME ~ /user-data$/ {
  if (name == "" && (name = value_of("hostname", $0)) != "") print "name", name
  list = "ssh_authorized_keys"
}

# A list ends at the next word of the top level, and may be a block, in brackets or a map.
inside && /^[^ \t-]/ { inside = 0 }
!inside && match($0, list "[\"']? *:") { inside = 1; keys_print(substr($0, RSTART)); next }
inside { keys_print($0) }
