/*
 * void co_switch_stack(void **save_sp, void *load_sp)
 *
 * Pushes the callee-saved registers, exchanges the stack pointer and pops the same registers of the
 * other side. The control words of the FPU are callee-saved too, but nothing here changes them.
 * The frames look alike on both sides, so that the unwind tables hold at every instruction.
 *
 * co_switch_entry is where a new stack starts: it calls the function that co_context_init put into
 * a callee-saved register, and ends the backtrace.
 */
#if defined(__x86_64__)
    .text
    .globl co_switch_stack
    .hidden co_switch_stack
    .type co_switch_stack, @function
    .p2align 4
co_switch_stack:
    .cfi_startproc
    endbr64
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    .globl co_switch_resume
    .hidden co_switch_resume
co_switch_resume: /* docs/gdb/vpool.py starts its backtraces here */
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    popq %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    jmp *%rcx
    .cfi_endproc
    .size co_switch_stack, . - co_switch_stack

    .globl co_switch_entry
    .hidden co_switch_entry
    .type co_switch_entry, @function
    .p2align 4
co_switch_entry:
    .cfi_startproc
    .cfi_undefined %rip
    endbr64
    movq %r13, %rdi
    callq *%r12
    ud2
    .cfi_endproc
    .size co_switch_entry, . - co_switch_entry

#elif defined(__aarch64__)
    .text
    .globl co_switch_stack
    .hidden co_switch_stack
    .type co_switch_stack, %function
    .p2align 4
co_switch_stack:
    .cfi_startproc
    hint #34 /* bti c */
    stp x29, x30, [sp, #-160]!
    .cfi_def_cfa_offset 160
    .cfi_offset x29, -160
    .cfi_offset x30, -152
    stp x19, x20, [sp, #16]
    .cfi_offset x19, -144
    .cfi_offset x20, -136
    stp x21, x22, [sp, #32]
    .cfi_offset x21, -128
    .cfi_offset x22, -120
    stp x23, x24, [sp, #48]
    .cfi_offset x23, -112
    .cfi_offset x24, -104
    stp x25, x26, [sp, #64]
    .cfi_offset x25, -96
    .cfi_offset x26, -88
    stp x27, x28, [sp, #80]
    .cfi_offset x27, -80
    .cfi_offset x28, -72
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    .globl co_switch_resume
    .hidden co_switch_resume
co_switch_resume: /* docs/gdb/vpool.py starts its backtraces here */
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x29, x30, [sp], #160
    .cfi_def_cfa_offset 0
    .cfi_restore x29
    .cfi_restore x30
    ret
    .cfi_endproc
    .size co_switch_stack, . - co_switch_stack

    .globl co_switch_entry
    .hidden co_switch_entry
    .type co_switch_entry, %function
    .p2align 4
co_switch_entry:
    .cfi_startproc
    .cfi_undefined x30
    hint #36 /* bti j */
    mov x0, x20
    blr x19
    brk #0
    .cfi_endproc
    .size co_switch_entry, . - co_switch_entry
#endif

    .section .note.GNU-stack, "", %progbits
