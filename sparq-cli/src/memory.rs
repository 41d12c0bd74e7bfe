//! The allocator: large allocations in large pages, and on GPUs small ones from an allocator for threads.
//!
//! A decode step goes through gigabytes of weights and keys. In pages of four kilobytes the processor looks
//! up an address each time that it enters one, and the system hands out each on first touch: in pages of two
//! megabytes memory is read about a fifth faster, and a model is loaded faster. Linux gives them to those
//! who ask.
//!
//! Each launch on a GPU is a message that one thread allocates and the thread of the device frees. A step of
//! three launches took 54 µs with the allocator of glibc and 36 µs with mimalloc, which expects that
//! (docs/kernels-gpu.md).

use std::alloc::{GlobalAlloc, Layout};

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use mimalloc::MiMalloc as Below;
#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
use std::alloc::System as Below;

/// The allocator below, and a request for large pages for what is large.
pub(crate) struct LargePages;

/// Sizes from which large pages are asked for; they are a quarter of this.
const LARGE: usize = 8 << 20;

#[allow(unsafe_code, reason = "an allocator is unsafe to implement, and what it calls to call")]
// SAFETY: every call is passed on to the allocator below as it is; beside that, the system is advised
// how to lay out memory that was allocated here, which changes no contents.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the conditions of the trait.
        let memory = unsafe { Below.alloc(layout) };
        advise(memory, layout.size());
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the conditions of the trait.
        let memory = unsafe { Below.alloc_zeroed(layout) };
        advise(memory, layout.size());
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the conditions of the trait.
        unsafe { Below.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the conditions of the trait.
        let memory = unsafe { Below.realloc(memory, layout, size) };
        advise(memory, size);
        memory
    }
}

/// Asks for large pages for the whole pages inside of `size` bytes at `memory`, where that is large.
fn advise(memory: *mut u8, size: usize) {
    if size < LARGE || memory.is_null() {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let before = memory.align_offset(PAGE);
        let whole = size.saturating_sub(before) / PAGE * PAGE;
        #[allow(unsafe_code)]
        // SAFETY: the range lies inside of memory that was just allocated; the advice leaves its contents as
        // they are. Where the system declines, pages stay small.
        unsafe {
            libc::madvise(memory.add(before).cast(), whole, libc::MADV_HUGEPAGE);
        }
    }
}
