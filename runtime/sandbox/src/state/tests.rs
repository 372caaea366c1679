use cloudserve_protocol::call::{Body, Invocation, RequestHead};
use cloudserve_protocol::fault::{Fault, FaultClass};
use cloudserve_protocol::headers::HeaderBlock;
use cloudserve_protocol::ids::ExecutionId;

use super::*;
use crate::pool::LOADS_WITHIN;
use crate::version::tests::target;
use crate::worker::tests::worker;

/// A request of a function, from a caller who waits for 5 s.
pub(crate) fn asked(target: &Arc<Target>) -> Asked {
    Asked::new(Invocation {
        execution_id: ExecutionId::new(),
        target: target.clone(),
        deadline: Instant::now() + Duration::from_secs(5),
        head: RequestHead {
            method: "GET".into(),
            target: "/".into(),
            headers: HeaderBlock::default(),
        },
        body: Body::Empty,
        told: oneshot::channel().0,
    })
}

fn wait(state: &mut State, target: &Arc<Target>) -> (u64, oneshot::Receiver<Grant>) {
    admitted(state, &mut asked(target), Turn::Comes)
}

fn admitted(state: &mut State, asked: &mut Asked, turn: Turn) -> (u64, oneshot::Receiver<Grant>) {
    match state.admit(asked, turn, &mut Todo::default()) {
        Admission::Wait { ticket, granted } => (ticket, granted),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_has_to_wait_again_keeps_its_place_even_in_a_full_queue() {
    let options = SandboxOptions::default();
    let mut state = State::new(&options);
    state.queue_length = 3;
    let target = target();
    let mut first = asked(&target);
    let (ticket, granted) = admitted(&mut state, &mut first, Turn::Comes);
    let _waiting: Vec<_> = (0..2).map(|_| wait(&mut state, &target)).collect();
    drop(granted);
    state.leave_queue(target.key(), ticket);
    let _last = wait(&mut state, &target);
    let mut late = asked(&target);
    let refused = state.admit(&mut late, Turn::Comes, &mut Todo::default());
    assert!(matches!(refused, Admission::Refused(Refusal::Busy)), "it is full");
    for turn in [Turn::HasCome, Turn::Comes] {
        let (again, granted) = admitted(&mut state, &mut first, turn);
        assert_eq!(again, ticket);
        let version = &state.versions[&target.key()];
        assert!(!version.is_first(ticket + 1) && version.queued() == 4, "it is before the others");
        drop(granted);
        state.leave_queue(target.key(), ticket);
    }
}

#[test]
fn who_comes_while_calls_last_has_a_worker_ordered_at_once_where_there_is_room() {
    let options = SandboxOptions { max_workers: 1, pool_size: 1, ..SandboxOptions::default() };
    let patience_us = options.scale_after_ms * 1_000;
    for (busy_us, last_us, is_full, boots) in [
        (patience_us, patience_us, false, 1),
        (3 * patience_us, 3 * patience_us, false, 3),
        (3 * patience_us, 3 * patience_us, true, 1),
        (20, 100 * patience_us, false, 1),
    ] {
        let mut state = State::new(&options);
        let mut todo = Todo::default();
        // Who waits for the only process there may be.
        let _place = is_full.then(|| state.take_ready(UserId::new(), &mut todo));
        let target = target();
        let version = Version::new(target.clone());
        let version = state.versions.entry(target.key()).or_insert(version);
        (0..50).for_each(|_| version.lanes.note(busy_us));
        version.lanes.note(last_us);
        let _waiting: Vec<_> =
            (0..3).map(|_| state.admit(&mut asked(&target), Turn::Comes, &mut todo)).collect();
        assert_eq!(todo.boots.len(), boots, "{busy_us} us, at last {last_us} us, {is_full}");
    }
}

#[test]
fn an_account_is_exhausted_by_its_last_call() {
    let mut state = State::new(&SandboxOptions::default());
    let owner = target().owner_id;
    assert!(!state.is_exhausted(owner));
    let bound = state.user_concurrency;
    for (calls, is_exhausted) in [(bound - 1, false), (bound, true)] {
        state.users.entry(owner).or_default().calls = calls;
        assert_eq!(state.is_exhausted(owner), is_exhausted, "{calls}");
    }
}

#[test]
fn a_boot_that_fails_costs_no_call_that_another_worker_may_serve() {
    let mut state = State::new(&SandboxOptions::default());
    let target = target();
    let key = target.key();
    let mut todo = Todo::default();
    assert!(state.order_boot(&target));
    let mut waiting: Vec<_> = (0..2).map(|_| wait(&mut state, &target)).collect();
    for (ticket, _) in &waiting {
        state.insist(key, *ticket, &mut todo);
    }
    assert_eq!(todo.boots.len(), 1, "two are worth it, and one is under way");

    let failure = Arc::new(BootFailure {
        fault: Fault::new(FaultClass::SandboxUnavailable, "no worker can be assigned; try again"),
        log: Vec::new(),
        log_is_cut: false,
        started: false,
        took: Duration::ZERO,
    });
    let mut todo = Todo::default();
    state.boot_failed(key, Some(&failure), &mut todo);
    assert!(waiting.iter_mut().all(|(_, granted)| granted.try_recv().is_err()), "they wait");
    assert!(todo.boots.is_empty(), "no other one is tried at once");
    state.boot_failed(key, Some(&failure), &mut todo);
    for (_, mut granted) in waiting {
        assert!(matches!(granted.try_recv(), Ok(Grant::Refused(Refusal::Boot(_)))));
    }
    assert!(todo.boots.is_empty() && state.census().queued == 0);
}

#[test]
fn a_boot_whose_task_is_gone_is_ordered_again_by_who_still_waits() {
    let mut state = State::new(&SandboxOptions::default());
    let target = target();
    let mut todo = Todo::default();
    let Admission::Wait { ticket, granted } =
        state.admit(&mut asked(&target), Turn::Comes, &mut todo)
    else {
        panic!("there is no worker");
    };
    assert_eq!((todo.boots.len(), state.census().loading), (1, 1));
    state.boot_lost(target.key());
    assert_eq!((state.census().loading, state.census().queued), (0, 1));
    let mut todo = Todo::default();
    state.insist(target.key(), ticket, &mut todo);
    assert_eq!((todo.boots.len(), state.census().loading), (1, 1));
    drop(granted);
}

#[tokio::test]
async fn the_pool_is_refilled_when_a_first_call_is_likely_over() {
    let mut state = State::new(&SandboxOptions { pool_size: 2, ..SandboxOptions::default() });
    state.pool.ready_mut().extend((0..2).map(|_| worker()));
    let owner = target().owner_id;
    let mut todo = Todo::default();
    assert!(state.take_ready(owner, &mut todo).is_ok());
    assert_eq!((todo.starts, todo.refill_in), (0, Some(LOADS_WITHIN)));
    state.refill(&mut todo);
    assert_eq!(todo.starts, 0, "nor when another call ends meanwhile");
    let mut todo = Todo::default();
    assert!(state.take_ready(owner, &mut todo).is_ok());
    assert!(todo.starts > 0 && todo.refill_in.is_none(), "that was the last one");
}

#[test]
fn nothing_is_kept_of_an_account_whose_calls_have_gone() {
    let options = SandboxOptions::default();
    let mut state = State::new(&options);
    let target = target();
    let key = target.key();
    // One more than it may run at once.
    let waiting: Vec<_> =
        (0..=options.platform.user_concurrency).map(|_| wait(&mut state, &target)).collect();
    for (ticket, granted) in waiting {
        drop(granted);
        state.leave_queue(key, ticket);
    }
    state.boot_failed(key, None, &mut Todo::default());
    state.end_idle_since(Instant::now());
    assert!(state.users.is_empty() && state.versions.is_empty());
}
