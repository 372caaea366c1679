//! One memory limit for V8's heap and one for array buffers, both `limits.memoryMb`.
//!
//! The isolate exists before its function is known, so the heap boots with a small limit that the
//! near-heap-limit callback raises to the assigned one. Beyond that the callback terminates
//! execution; it must still return a larger limit, or V8 aborts the process.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use cloudserve_protocol::wire::EXIT_OUT_OF_MEMORY;
use deno_core::v8;

/// Heap limit of a worker that is not assigned yet.
pub(crate) const BOOT_HEAP_BYTES: usize = 32 * MB;

/// What the heap may grow beyond its limit while a terminated call unwinds.
const UNWIND_BYTES: usize = 64 * MB;

const MB: usize = 1024 * 1024;
const ALIGN: usize = 16;

/// The memory of one worker.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit_bytes: AtomicUsize,
    buffer_bytes: AtomicUsize,
    buffer_refused: AtomicBool,
    heap_exceeded: AtomicBool,
}

impl MemoryBudget {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            limit_bytes: AtomicUsize::new(usize::MAX / 2),
            buffer_bytes: AtomicUsize::new(0),
            buffer_refused: AtomicBool::new(false),
            heap_exceeded: AtomicBool::new(false),
        })
    }

    /// Sets the limit of the assigned function.
    pub(crate) fn assign(&self, memory_mb: u32) {
        self.limit_bytes.store(memory_mb as usize * MB, Ordering::Relaxed);
    }

    /// Bytes in array buffers.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes.load(Ordering::Relaxed)
    }

    /// Whether the heap outgrew its limit; the isolate is terminated then.
    pub(crate) fn heap_exceeded(&self) -> bool {
        self.heap_exceeded.load(Ordering::Relaxed)
    }

    /// Whether an array buffer was refused. V8 turns that into a `RangeError`.
    pub(crate) fn buffer_refused(&self) -> bool {
        self.buffer_refused.load(Ordering::Relaxed)
    }

    /// What to do when the heap is about to outgrow `current` bytes: the new limit.
    pub(crate) fn near_heap_limit(&self, current: usize, isolate: &v8::IsolateHandle) -> usize {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        if current < limit {
            return limit;
        }
        self.heap_exceeded.store(true, Ordering::Relaxed);
        isolate.terminate_execution();
        current + UNWIND_BYTES
    }

    /// V8's allocator of array buffers, counting against this budget.
    pub(crate) fn allocator(self: &Arc<Self>) -> v8::UniqueRef<v8::Allocator> {
        static VTABLE: v8::RustAllocatorVtable<MemoryBudget> = v8::RustAllocatorVtable {
            allocate,
            allocate_uninitialized,
            free,
            drop: drop_budget,
        };
        // SAFETY: the handle is an Arc's pointer, given back in `drop_budget`, and the vtable's
        // functions take it as what it is.
        unsafe { v8::new_rust_allocator(Arc::into_raw(self.clone()), &VTABLE) }
    }

    fn take(&self, len: usize, get: unsafe fn(Layout) -> *mut u8) -> *mut c_void {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        let fits = self.buffer_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(len).filter(|total| *total <= limit)
        });
        let layout = Layout::from_size_align(len.max(1), ALIGN);
        let (Ok(_), Ok(layout)) = (fits, layout) else {
            self.buffer_refused.store(true, Ordering::Relaxed);
            return std::ptr::null_mut();
        };
        // SAFETY: the layout is not empty.
        let memory = unsafe { get(layout) };
        if memory.is_null() {
            self.buffer_bytes.fetch_sub(len, Ordering::Relaxed);
        }
        memory.cast()
    }
}

unsafe extern "C" fn allocate(budget: &MemoryBudget, len: usize) -> *mut c_void {
    budget.take(len, alloc_zeroed)
}

unsafe extern "C" fn allocate_uninitialized(budget: &MemoryBudget, len: usize) -> *mut c_void {
    budget.take(len, alloc)
}

unsafe extern "C" fn free(budget: &MemoryBudget, data: *mut c_void, len: usize) {
    budget.buffer_bytes.fetch_sub(len, Ordering::Relaxed);
    let layout = Layout::from_size_align(len.max(1), ALIGN).expect("it was allocated with it");
    // SAFETY: V8 gives back what `take` handed out, with the same length.
    unsafe { dealloc(data.cast(), layout) };
}

unsafe extern "C" fn drop_budget(budget: *const MemoryBudget) {
    // SAFETY: the pointer came from `Arc::into_raw` in `allocator`.
    drop(unsafe { Arc::from_raw(budget) });
}

/// V8 cannot go on: one allocation was too large for the callback to help.
pub(crate) unsafe extern "C" fn out_of_memory(
    _location: *const std::ffi::c_char,
    _details: &v8::OomDetails,
) {
    const LINE: &[u8] = b"cloudserve-worker: out of memory\n";
    // SAFETY: a write from a static buffer and an exit that runs no destructors.
    unsafe {
        libc::write(2, LINE.as_ptr().cast(), LINE.len());
        libc::_exit(EXIT_OUT_OF_MEMORY)
    }
}
