# The smallest guest that can prove something: it prints, obeys, halts and panics.
# It prints its text on the serial line, then waits for its power button, or for one letter on the
# serial line: h halts, p panics, anything else is printed back.
# Build: as --32 boot_sector.S -o x.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary x.o -o x.bin
        .code16
        .globl _start
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $0x7c00, %sp
        cld
        movw    $text, %si
        movw    $0x3f8, %dx
print:  lodsb
        testb   %al, %al
        jz      ready
        outb    %al, %dx
        jmp     print
ready:  movw    $0x602, %dx             # ACPI: let the power button be noticed
        movw    $0x0100, %ax
        outw    %ax, %dx
look:   movw    $0x600, %dx
        inw     %dx, %ax
        testb   $1, %ah
        jnz     halt
        movw    $0x3fd, %dx             # has a letter come in?
        inb     %dx, %al
        testb   $1, %al
        jz      rest
        movw    $0x3f8, %dx
        inb     %dx, %al
        cmpb    $'h', %al
        je      halt
        cmpb    $'p', %al
        je      panic
        outb    %al, %dx
rest:   sti
        hlt                             # the timer wakes us 18 times a second
        jmp     look
panic:  movw    $0x505, %dx             # pvpanic
        movb    $1, %al
        outb    %al, %dx
        jmp     rest
halt:   movw    $0x604, %dx             # ACPI: soft off
        movw    $0x2000, %ax
        outw    %ax, %dx
        jmp     rest
text:
