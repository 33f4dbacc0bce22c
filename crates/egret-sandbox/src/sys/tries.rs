//! System calls that a sandboxed program is not to get, made as such a program would.

use std::io;

/// Makes a system call with plain numbers for arguments.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn call(number: libc::c_long, arguments: [usize; 4]) -> io::Result<()> {
    let [a, b, c, d] = arguments;
    // SAFETY: the one caller, `attempts`, passes numbers, descriptors that nobody has and null pointers only. The kernel
    // reads no memory of ours by these and writes none; where a call succeeds, what changes is what this process may do.
    let outcome = unsafe { libc::syscall(number, a, b, c, d, 0usize, 0usize) };
    match outcome {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Asks for this process's id by the 32-bit convention. Where that is a foreign one and refused, the process ends here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn foreign_getpid() -> i32 {
    const GETPID: i32 = 20; // arch/x86/entry/syscalls/syscall_32.tbl
    let pid: i32;
    // SAFETY: getpid takes nothing and touches no memory. The 32-bit entry keeps all registers but eax; r8 to r11 are
    // given as lost, since older kernels clear them.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") GETPID => pid,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    pid
}
