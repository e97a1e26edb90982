# The probe guest of kvm.py: what an ordinary kernel does in its first moments, in 440 bytes.
# It tells each stage on the debug console (port 0xe9) and ends through isa-debug-exit (port 0xf4).
# Build: as --64 -o p.o kvm_probe.S && ld -m elf_x86_64 -Ttext 0x100000 --oformat binary -o p.bin p.o
.set BASE, 0x100000
.set PML4, 0x200000
.set PDPT, 0x201000
.set PD,   0x202000
.set IDT,  0x203000
.set STACK,0x210000
.code32
.globl _start
_start:
header:
  .long 0x1BADB002, 0x10000, -(0x1BADB002+0x10000)
  .long header, header, end, end, entry
entry:
  mov $'P', %al ; out %al, $0xe9          # P: protected mode
  mov $STACK, %esp
  # page tables: the first 32 MiB, identical, in pages of 2 MiB
  mov $PML4, %edi
  xor %eax, %eax
  mov $0x1000, %ecx
  rep stosl
  movl $PDPT+3, PML4
  movl $PD+3, PDPT
  mov $PD, %edi
  mov $0x83, %eax
  mov $16, %ecx
1: mov %eax, (%edi)
  add $0x200000, %eax
  add $8, %edi
  loop 1b
  mov %cr4, %eax ; or $0x20, %eax ; mov %eax, %cr4       # PAE
  mov $PML4, %eax ; mov %eax, %cr3
  mov $0xC0000080, %ecx ; rdmsr ; or $0x100, %eax ; wrmsr  # long mode
  mov %cr0, %eax ; or $0x80010000, %eax ; mov %eax, %cr0  # paging, write protection
  lgdt gdt_pointer
  ljmp $8, $long
.code64
long:
  mov $'L', %al ; out %al, $0xe9          # L: long mode with paging
  mov $16, %eax ; mov %eax, %ss ; mov %eax, %ds ; mov %eax, %es
  mov $STACK, %rsp
  # every interrupt vector to the same gate
  mov $IDT, %edi
  mov $256, %ecx
1: mov $tick, %eax
  movw %ax, (%rdi)
  movw $8, 2(%rdi)
  movw $0x8E00, 4(%rdi)
  shr $16, %eax
  mov %ax, 6(%rdi)
  xor %eax, %eax
  mov %rax, 8(%rdi)
  add $16, %rdi
  loop 1b
  lidt idt_pointer
  # plain computing: a fraction of a second on a processor, an eternity where a hypervisor
  # interprets the guest instruction by instruction
  mov $50000000, %ecx
1: dec %ecx
  jnz 1b
  mov $'C', %al ; out %al, $0xe9          # C: computing
  # memory: write and read back one word in each page of 16 MiB, then again through a new CR3
  mov $0x400000, %rdi
1: mov %rdi, (%rdi)
  add $0x1000, %rdi
  cmp $0x1400000, %rdi
  jb 1b
  mov %cr3, %rax ; mov %rax, %cr3
  mov $0x400000, %rdi
2: cmp %rdi, (%rdi)
  jne fail
  add $0x1000, %rdi
  cmp $0x1400000, %rdi
  jb 2b
  mov $'M', %al ; out %al, $0xe9          # M: memory
  # cpuid and time stamp counter
  xor %eax, %eax ; cpuid ; rdtsc
  # interrupt controller to vectors 32.., timer at 1 kHz, only the timer unmasked
  mov $0x11, %al ; out %al, $0x20 ; out %al, $0xa0
  mov $0x20, %al ; out %al, $0x21 ; mov $0x28, %al ; out %al, $0xa1
  mov $4, %al ; out %al, $0x21 ; mov $2, %al ; out %al, $0xa1
  mov $1, %al ; out %al, $0x21 ; out %al, $0xa1
  mov $0xfe, %al ; out %al, $0x21 ; mov $0xff, %al ; out %al, $0xa1
  mov $0x34, %al ; out %al, $0x43 ; mov $0xa9, %al ; out %al, $0x40 ; mov $4, %al ; out %al, $0x40
  xor %ebx, %ebx
3: sti
  hlt
  cli
  cmp $20, %ebx
  jb 3b
  mov $'T', %al ; out %al, $0xe9          # T: twenty timer interrupts woke it from sleep
  mov $0x2a, %al
  out %al, $0xf4
fail:
  cli
  hlt
  jmp fail
tick:
  inc %ebx
  push %rax
  mov $0x20, %al
  out %al, $0x20
  pop %rax
  iretq
.align 8
gdt: .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF
gdt_pointer: .word 23 ; .long gdt
idt_pointer: .word 4095 ; .quad IDT
end:
