//! One memory limit, `limits.memoryMb`, for V8's heap and array buffers together, beyond what the
//! platform's own code holds: the heap when it is booted.
//!
//! The isolate exists before its function is known, so the heap boots with a small limit that the
//! near-heap-limit callback raises in steps, as far as the assigned limit and the buffers in use
//! allow. Beyond that the callback terminates execution; it must still return a larger limit, or
//! V8 aborts the process. What grows on in spite of that ends the process.
//!
//! What is neither, WebAssembly's memory and what native code allocates, shows in the memory that
//! is resident: the watchdog ends a process that holds the limit and [`SLACK_BYTES`] more.

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

/// Private memory a process may hold beyond its limit: garbage that is not collected yet, compiled
/// code, what native code needs for a moment.
const SLACK_BYTES: usize = 64 * MB;

/// The same for all resident memory, in which pages of the program itself are counted as they are
/// touched.
const SLACK_WITH_PROGRAM_BYTES: usize = 192 * MB;

/// New buffers after which the young generation is worth collecting, see [`MemoryBudget::has_many_new`]:
/// less than the platform's heap, and so much less than what V8 begins to mark all of it at.
const MANY_NEW_BYTES: usize = 8 * MB;

/// Larger buffers are memory of their own, which goes back to the system at once.
const OWN_MEMORY_BYTES: libc::c_int = 8 * 1024 * 1024;

/// What is free behind all else goes back to the system when it is more: buffers are freed many at a time.
const KEPT_FREE_BYTES: libc::c_int = 32 * 1024 * 1024;

const MB: usize = 1024 * 1024;
const ALIGN: usize = 16;

/// The memory of one worker.
pub(crate) struct MemoryBudget {
    limit_bytes: AtomicUsize,
    /// The heap that is not the function's.
    platform_bytes: AtomicUsize,
    /// The heap when it was looked at last.
    heap_bytes: AtomicUsize,
    /// Its limit was raised since.
    heap_has_outgrown: AtomicBool,
    buffer_bytes: AtomicUsize,
    /// Bytes of buffers since the young generation was collected last for them.
    new_bytes: AtomicUsize,
    /// The process keeps memory that it has freed.
    keeps_free: AtomicBool,
    /// Since a buffer was granted last.
    refusals: AtomicU32,
    exceeded: AtomicBool,
    isolate: OnceLock<v8::IsolateHandle>,
    /// What was resident before the function was loaded.
    baseline: [AtomicUsize; 2],
    /// Private memory when it was looked at last, and the most since the call began.
    private_bytes: AtomicUsize,
    most_private_bytes: AtomicUsize,
    /// Private memory, and heap and buffers, when the call began.
    at_begin: [AtomicUsize; 2],
    /// The most of heap and buffers since the call began, as far as buffers show it.
    most_used_bytes: AtomicUsize,
}

/// Resident memory of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resident {
    total_bytes: usize,
    /// Neither pages of files nor shared.
    private_bytes: usize,
}

impl Resident {
    /// From `/proc/self/statm`.
    pub(crate) fn parse(statm: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(statm).ok()?;
        let mut pages = text.split_whitespace().skip(1).map(str::parse::<usize>);
        let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
        // SAFETY: a constant of the system.
        let page_bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
        Some(Self {
            total_bytes: resident * page_bytes,
            private_bytes: resident.saturating_sub(shared) * page_bytes,
        })
    }
}

impl MemoryBudget {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            limit_bytes: AtomicUsize::new(usize::MAX / 2),
            platform_bytes: AtomicUsize::new(0),
            heap_bytes: AtomicUsize::new(0),
            heap_has_outgrown: AtomicBool::new(false),
            buffer_bytes: AtomicUsize::new(0),
            new_bytes: AtomicUsize::new(0),
            keeps_free: AtomicBool::new(false),
            refusals: AtomicU32::new(0),
            exceeded: AtomicBool::new(false),
            isolate: OnceLock::new(),
            baseline: [const { AtomicUsize::new(usize::MAX / 4) }; 2],
            private_bytes: AtomicUsize::new(0),
            most_private_bytes: AtomicUsize::new(0),
            at_begin: [const { AtomicUsize::new(0) }; 2],
            most_used_bytes: AtomicUsize::new(0),
        })
    }

    /// Says which isolate to terminate.
    pub(crate) fn attach(&self, isolate: v8::IsolateHandle) {
        // A budget has one isolate for life; a second call would name the same.
        let _ = self.isolate.set(isolate);
    }

    /// What V8 holds now, `heap_bytes` and buffers, is the platform's.
    pub(crate) fn set_platform(&self, heap_bytes: usize) {
        let platform_bytes = heap_bytes + self.buffer_bytes.load(Ordering::Relaxed);
        self.platform_bytes.store(platform_bytes, Ordering::Relaxed);
    }

    /// Sets the limit of the assigned function. Returns what the heap may grow to.
    pub(crate) fn assign(&self, memory_mb: u32) -> usize {
        let limit_bytes = self.platform_bytes.load(Ordering::Relaxed) + memory_mb as usize * MB;
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
        limit_bytes
    }

    /// What the process holds without a function.
    pub(crate) fn take_baseline(&self, resident: Resident) {
        self.baseline[0].store(resident.total_bytes, Ordering::Relaxed);
        self.baseline[1].store(resident.private_bytes, Ordering::Relaxed);
        self.private_bytes.store(resident.private_bytes, Ordering::Relaxed);
    }

    /// Whether the process holds more than its limit can explain.
    pub(crate) fn is_beyond(&self, resident: Resident) -> bool {
        // The baseline has the platform's share.
        let limit =
            self.limit_bytes.load(Ordering::Relaxed) - self.platform_bytes.load(Ordering::Relaxed);
        let private = resident.private_bytes;
        self.private_bytes.store(private, Ordering::Relaxed);
        self.most_private_bytes.fetch_max(private, Ordering::Relaxed);
        let [total, own] = &self.baseline;
        private > own.load(Ordering::Relaxed) + limit + SLACK_BYTES
            || resident.total_bytes
                > total.load(Ordering::Relaxed) + limit + SLACK_WITH_PROGRAM_BYTES
    }

    /// A call begins: [`MemoryBudget::peak_bytes`] is counted from here.
    pub(crate) fn begin(&self) {
        let private = self.private_bytes.load(Ordering::Relaxed);
        let used = self.counted_bytes();
        self.at_begin[0].store(private, Ordering::Relaxed);
        self.at_begin[1].store(used, Ordering::Relaxed);
        self.most_private_bytes.store(private, Ordering::Relaxed);
        self.most_used_bytes.store(used, Ordering::Relaxed);
    }

    /// Heap and buffers of the function.
    fn counted_bytes(&self) -> usize {
        (self.heap_bytes.load(Ordering::Relaxed) + self.buffer_bytes.load(Ordering::Relaxed))
            .saturating_sub(self.platform_bytes.load(Ordering::Relaxed))
    }

    /// The heap was looked at.
    pub(crate) fn saw_heap(&self, heap_bytes: usize) {
        self.heap_bytes.store(heap_bytes, Ordering::Relaxed);
        self.heap_has_outgrown.store(false, Ordering::Relaxed);
    }

    /// Whether its limit was raised since: what is known of it is what it was at most.
    pub(crate) fn heap_has_outgrown(&self) -> bool {
        self.heap_has_outgrown.load(Ordering::Relaxed)
    }

    /// The most that was in use since the call began, with the heap as it was looked at last. What
    /// heap and buffers do not show is what the process has grown by.
    pub(crate) fn peak_bytes(&self) -> usize {
        let [private, used] = &self.at_begin;
        let growth = self
            .most_private_bytes
            .load(Ordering::Relaxed)
            .saturating_sub(private.load(Ordering::Relaxed));
        self.counted_bytes()
            .max(self.most_used_bytes.load(Ordering::Relaxed))
            .max(used.load(Ordering::Relaxed) + growth)
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
        self.heap_has_outgrown.store(true, Ordering::Relaxed);
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

    /// V8 got a buffer.
    pub(crate) fn got_new(&self, len: usize) {
        self.new_bytes.fetch_add(len, Ordering::Relaxed);
    }

    /// Whether V8 has got many buffers since this was true last. It frees those of calls that are over
    /// when it collects its young generation, which takes a hundredth of what it takes to mark all of
    /// its heap. Left to itself it would do that: what the buffers have counts.
    pub(crate) fn has_many_new(&self) -> bool {
        let has_many = self.new_bytes.load(Ordering::Relaxed) >= MANY_NEW_BYTES;
        if has_many {
            self.new_bytes.store(0, Ordering::Relaxed);
            self.keep_free();
        }
        has_many
    }

    /// From now on memory that was freed is there for the next call: the pages of what is new are made
    /// one by one when they are touched. [`MemoryBudget::give_back`] ends that.
    fn keep_free(&self) {
        if !self.keeps_free.swap(true, Ordering::Relaxed) {
            // SAFETY: these set numbers of the allocator, which locks for it.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MEMORY_BYTES);
                libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE_BYTES);
            }
        }
    }

    /// The process rests: memory that it keeps for the next call goes back to the system.
    pub(crate) fn give_back(&self) {
        if self.keeps_free.swap(false, Ordering::Relaxed) {
            give_back_freed();
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
        self.got_new(len);
        self.most_used_bytes.fetch_max(self.counted_bytes(), Ordering::Relaxed);
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

/// Gives the system all that was freed, also what lies between what is in use.
pub(crate) fn give_back_freed() {
    // SAFETY: the allocator locks for it.
    unsafe { libc::malloc_trim(0) };
}

/// V8 cannot go on: one allocation was too large for the callback to help.
pub(crate) unsafe extern "C" fn out_of_memory(
    _location: *const std::ffi::c_char,
    _details: &v8::OomDetails,
) {
    exit_out_of_memory()
}

/// Ends the process so that the supervisor knows why.
pub(crate) fn exit_out_of_memory() -> ! {
    const LINE: &[u8] = b"cloudserve-worker: out of memory\n";
    // SAFETY: a write from a static buffer and an exit that runs no destructors.
    unsafe {
        libc::write(2, LINE.as_ptr().cast(), LINE.len());
        libc::_exit(EXIT_OUT_OF_MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(total_mb: usize, private_mb: usize) -> Resident {
        Resident { total_bytes: total_mb * MB, private_bytes: private_mb * MB }
    }

    #[test]
    fn resident_memory_is_held_against_the_limit() {
        let budget = MemoryBudget::new();
        assert!(!budget.is_beyond(resident(4_000, 4_000)), "no function yet");
        budget.take_baseline(resident(60, 20));
        budget.set_platform(10 * MB);
        budget.assign(128);
        assert!(!budget.is_beyond(resident(240, 200)));
        assert!(budget.is_beyond(resident(260, 220)), "private memory");
        assert!(budget.is_beyond(resident(400, 30)), "shared memory");
    }

    #[test]
    fn the_peak_of_a_call_counts_from_its_beginning() {
        let budget = MemoryBudget::new();
        budget.take_baseline(resident(60, 20));
        budget.begin();
        budget.saw_heap(3 * MB);
        assert_eq!(budget.peak_bytes(), 3 * MB);
        budget.is_beyond(resident(70, 30));
        assert_eq!(budget.peak_bytes(), 10 * MB);
        budget.begin();
        budget.saw_heap(4 * MB);
        assert_eq!(budget.peak_bytes(), 4 * MB);
    }

    #[test]
    fn a_heap_whose_limit_was_raised_is_to_be_looked_at() {
        let budget = MemoryBudget::new();
        budget.assign(128);
        budget.saw_heap(3 * MB);
        assert!(!budget.heap_has_outgrown());
        assert!(budget.near_heap_limit(BOOT_HEAP_BYTES) > BOOT_HEAP_BYTES);
        assert!(budget.heap_has_outgrown());
        budget.saw_heap(4 * MB);
        assert!(!budget.heap_has_outgrown());
    }

    #[test]
    fn many_buffers_are_many_once() {
        let budget = MemoryBudget::new();
        budget.got_new(MANY_NEW_BYTES - 1);
        assert!(!budget.has_many_new());
        budget.got_new(1);
        assert!(budget.has_many_new());
        assert!(!budget.has_many_new());
        budget.give_back();
        assert!(!budget.keeps_free.load(Ordering::Relaxed));
    }

    #[test]
    fn statm_is_understood() {
        let page = 4096;
        let got = Resident::parse(b"1000 300 100 5 0 50 0\n").unwrap();
        assert_eq!(got.private_bytes % page, 0);
        assert_eq!(got.total_bytes * 2, got.private_bytes * 3);
        assert!(Resident::parse(b"").is_none());
    }
}
