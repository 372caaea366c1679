//! One memory limit, `limits.memoryMb`, for V8's heap and array buffers together, beyond what the
//! platform's own code holds: the heap when the function is assigned.
//!
//! The isolate exists before its function is known, so the heap boots with a small limit that the
//! near-heap-limit callback raises in steps, as far as the assigned limit and the buffers in use
//! allow. Beyond that the callback terminates execution; it must still return a larger limit, or
//! V8 aborts the process. What grows on in spite of that ends the process.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cloudserve_protocol::wire::EXIT_OUT_OF_MEMORY;
use deno_core::v8;

/// Heap limit of a worker that is not assigned yet. Enough for V8 not to think of collecting
/// garbage while a package is loaded.
pub(crate) const BOOT_HEAP_BYTES: usize = 96 * MB;

/// How far the heap's limit is raised at once. Buffers are granted on what the heap had when its
/// limit was raised last, so this is how far both together may be off.
const STEP_BYTES: usize = 32 * MB;

/// What the heap may grow beyond its limit while a terminated call unwinds.
const UNWIND_BYTES: usize = 16 * MB;

/// V8 asks again after each of three garbage collections before it gives a buffer up; fewer when
/// collecting has been of no use lately.
const REFUSALS_UNTIL_FINAL: u32 = 4;

const MB: usize = 1024 * 1024;
const ALIGN: usize = 16;

/// The memory of one worker.
pub(crate) struct MemoryBudget {
    limit_bytes: AtomicUsize,
    /// The heap that is not the function's.
    platform_bytes: AtomicUsize,
    /// The heap when it was looked at last.
    heap_bytes: AtomicUsize,
    buffer_bytes: AtomicUsize,
    /// Since a buffer was granted last.
    refusals: AtomicU32,
    exceeded: AtomicBool,
    isolate: OnceLock<v8::IsolateHandle>,
}

impl MemoryBudget {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            limit_bytes: AtomicUsize::new(usize::MAX / 2),
            platform_bytes: AtomicUsize::new(0),
            heap_bytes: AtomicUsize::new(0),
            buffer_bytes: AtomicUsize::new(0),
            refusals: AtomicU32::new(0),
            exceeded: AtomicBool::new(false),
            isolate: OnceLock::new(),
        })
    }

    /// Says which isolate to terminate.
    pub(crate) fn attach(&self, isolate: v8::IsolateHandle) {
        // A budget has one isolate for life; a second call would name the same.
        let _ = self.isolate.set(isolate);
    }

    /// Sets the limit of the assigned function, given the heap before it is loaded. Returns what
    /// the heap may grow to.
    pub(crate) fn assign(&self, memory_mb: u32, heap_bytes: usize) -> usize {
        let platform_bytes = heap_bytes + self.buffer_bytes.load(Ordering::Relaxed);
        let limit_bytes = platform_bytes + memory_mb as usize * MB;
        self.platform_bytes.store(platform_bytes, Ordering::Relaxed);
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
        limit_bytes
    }

    /// Bytes the function uses, given those of the heap.
    pub(crate) fn used_bytes(&self, heap_bytes: usize) -> usize {
        self.heap_bytes.store(heap_bytes, Ordering::Relaxed);
        (heap_bytes + self.buffer_bytes.load(Ordering::Relaxed))
            .saturating_sub(self.platform_bytes.load(Ordering::Relaxed))
    }

    /// Whether the limit was reached; the isolate is terminated then.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    /// Whether the buffer asked for last was refused.
    pub(crate) fn was_refused(&self) -> bool {
        self.refusals.load(Ordering::Relaxed) > 0
    }

    /// What to do when the heap is about to outgrow `current` bytes: the new limit.
    pub(crate) fn near_heap_limit(&self, current: usize) -> usize {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        let allowed = limit.saturating_sub(self.buffer_bytes.load(Ordering::Relaxed));
        self.heap_bytes.store(current, Ordering::Relaxed);
        if current < allowed {
            return allowed.min(current + STEP_BYTES);
        }
        if self.exceeded() {
            exit_out_of_memory();
        }
        self.terminate();
        current + UNWIND_BYTES
    }

    fn terminate(&self) {
        self.exceeded.store(true, Ordering::Relaxed);
        if let Some(isolate) = self.isolate.get() {
            isolate.terminate_execution();
        }
    }

    /// V8's allocator of array buffers, counting against this budget.
    pub(crate) fn allocator(self: &Arc<Self>) -> v8::UniqueRef<v8::Allocator> {
        static VTABLE: v8::RustAllocatorVtable<MemoryBudget> =
            v8::RustAllocatorVtable { allocate, allocate_uninitialized, free, drop: drop_budget };
        // SAFETY: the handle is an Arc's pointer, given back in `drop_budget`, and the vtable's
        // functions take it as what it is.
        unsafe { v8::new_rust_allocator(Arc::into_raw(self.clone()), &VTABLE) }
    }

    fn take(&self, len: usize, get: unsafe fn(Layout) -> *mut u8) -> *mut c_void {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        let left = limit.saturating_sub(self.heap_bytes.load(Ordering::Relaxed));
        let fits = self.buffer_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(len).filter(|total| *total <= left)
        });
        let layout = Layout::from_size_align(len.max(1), ALIGN);
        let (Ok(_), Ok(layout)) = (fits, layout) else {
            if self.refusals.fetch_add(1, Ordering::Relaxed) + 1 >= REFUSALS_UNTIL_FINAL {
                self.terminate();
            }
            return std::ptr::null_mut();
        };
        self.refusals.store(0, Ordering::Relaxed);
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
    exit_out_of_memory()
}

fn exit_out_of_memory() -> ! {
    const LINE: &[u8] = b"cloudserve-worker: out of memory\n";
    // SAFETY: a write from a static buffer and an exit that runs no destructors.
    unsafe {
        libc::write(2, LINE.as_ptr().cast(), LINE.len());
        libc::_exit(EXIT_OUT_OF_MEMORY)
    }
}
