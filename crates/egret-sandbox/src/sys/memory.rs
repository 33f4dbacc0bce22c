//! Memory that nobody uses.

/// Has all threads that come share one heap, of which [`give_memory_back`] can give back everything: the end of a heap of a
/// thread's own stays with it, in the GNU C library. Others need no telling.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers and no pointer. If it does not know this one, nothing changes.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives memory back to the system that this process has freed. The allocator of the GNU C library keeps what lies below
/// something that is still used.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and no pointer, may be called from any thread, and touches only memory that
    // the allocator holds as free. Whether there was some to give back is of no interest.
    unsafe {
        libc::malloc_trim(0);
    }
}
