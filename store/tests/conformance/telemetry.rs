//! Usage and logs.

use cloudserve_protocol::call::{LogLevel, LogLine};
use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use cloudserve_store::telemetry::{CallStatus, Latency, LogFilter, LogQuery, UsageQuery, UsageRow};
use cloudserve_store::{StoreError, Stores, Timestamp};
use futures::future::join_all;

use crate::fixtures::{NOON, log, usage};

const DAY: i64 = 86_400_000;

fn all_of(user_id: UserId) -> UsageQuery {
    UsageQuery { user_id, function_id: None, from: None, to: None }
}

fn logs_of(function_id: FunctionId) -> LogQuery {
    let filter = LogFilter::default();
    LogQuery { function_id, limit: 100, after: None, execution_id: None, filter }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

pub(crate) async fn recording_twice_counts_once(stores: &Stores) {
    let (ada, id) = (UserId::new(), FunctionId::new());
    let mut calls: Vec<_> = (0..50).map(|n| usage(ada, id, NOON + n)).collect();
    calls[0].status = CallStatus::Error;
    calls[0].code = "timeout".into();
    calls[1].cold = true;
    calls[2].cpu_ms = f64::NAN;
    let logs: Vec<_> = calls
        .iter()
        .map(|call| {
            let mut row = log(id, call.timestamp.0);
            row.execution_id = call.execution_id;
            row
        })
        .collect();
    // One batch, the same batch from several tasks, and the same rows in other batches.
    let again = (0..8).map(|part| {
        let telemetry = stores.telemetry.clone();
        let (calls, logs) = (calls[part * 5..].to_vec(), logs.clone());
        tokio::spawn(async move { telemetry.record(calls, logs).await })
    });
    join_all(again).await.into_iter().for_each(|outcome| outcome.unwrap().unwrap());
    let twice = vec![calls[0].clone(), calls[0].clone()];
    stores.telemetry.record(twice, Vec::new()).await.unwrap();

    let totals = stores.telemetry.usage_totals(all_of(ada)).await.unwrap();
    assert_eq!((totals.executed, totals.errors, totals.cold), (50, 1, 1));
    assert!(close(totals.duration_ms, 50.0 * 12.5) && close(totals.cpu_ms, 49.0 * 3.25));
    assert!(close(totals.gb_seconds, 50.0 * 64.0 / 1_024.0 * 0.0125));
    assert_eq!(stores.telemetry.logs(logs_of(id)).await.unwrap().rows.len(), 50);

    let never = FunctionId::new();
    let stats = stores.telemetry.function_stats(&[id, never]).await.unwrap();
    assert_eq!((stats[0].0, stats[1].0), (id, never));
    assert_eq!((stats[0].1.executed, stats[0].1.errors), (50, 1));
    assert!(close(stats[0].1.avg_latency, 12.5) && close(stats[0].1.avg_memory, 64.0));
    assert_eq!(stats[1].1, cloudserve_store::telemetry::FunctionStats::default());
}

pub(crate) async fn logs_are_read_newest_first_by_cursor(stores: &Stores) {
    let id = FunctionId::new();
    let mut rows: Vec<_> = (0..5).map(|n| log(id, NOON + n / 2)).collect();
    rows[1].lines = vec![
        LogLine { level: LogLevel::Info, message: "eins \u{1F980}\n\0".into(), timestamp_ms: 7 },
        LogLine { level: LogLevel::Error, message: String::new(), timestamp_ms: u64::MAX },
    ];
    rows[1].truncated = true;
    rows[1].status = CallStatus::Error;
    stores.telemetry.record(Vec::new(), rows.clone()).await.unwrap();
    stores.telemetry.record(Vec::new(), vec![log(FunctionId::new(), NOON)]).await.unwrap();

    let mut read = Vec::new();
    let mut query = LogQuery { limit: 2, ..logs_of(id) };
    loop {
        let page = stores.telemetry.logs(query.clone()).await.unwrap();
        read.extend(page.rows);
        // A newer call between two pages appears in neither.
        stores.telemetry.record(Vec::new(), vec![log(id, NOON + 10)]).await.unwrap();
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    rows.reverse();
    assert_eq!(read, rows);

    let one = LogQuery { execution_id: Some(rows[3].execution_id), ..logs_of(id) };
    assert_eq!(stores.telemetry.logs(one).await.unwrap().rows, [rows[3].clone()]);
    let elsewhere =
        LogQuery { execution_id: Some(rows[3].execution_id), ..logs_of(FunctionId::new()) };
    assert!(stores.telemetry.logs(elsewhere).await.unwrap().rows.is_empty());
    let none = LogQuery { execution_id: Some(ExecutionId::new()), ..logs_of(id) };
    assert!(stores.telemetry.logs(none).await.unwrap().rows.is_empty());
    let nonsense = LogQuery { after: Some("nonsense".into()), ..logs_of(id) };
    let refused = stores.telemetry.logs(nonsense).await;
    assert!(matches!(refused, Err(StoreError::BadCursor)));
}

pub(crate) async fn pages_of_large_logs_are_bounded(stores: &Stores) {
    let id = FunctionId::new();
    let line = LogLine { level: LogLevel::Info, message: "x".repeat(900_000), timestamp_ms: 7 };
    let mut rows: Vec<_> = (0..24).map(|n| log(id, NOON + n)).collect();
    for row in &mut rows {
        row.lines = vec![line.clone()];
    }
    // One row beyond any bound of a page.
    rows[20].lines = vec![line; 12];
    stores.telemetry.record(Vec::new(), rows.clone()).await.unwrap();

    let (mut read, mut pages) = (Vec::new(), 0);
    let mut query = logs_of(id);
    loop {
        let page = stores.telemetry.logs(query.clone()).await.unwrap();
        read.extend(page.rows);
        pages += 1;
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    rows.reverse();
    assert!(pages > 3, "{pages}");
    assert!(read == rows);
}

fn is_chosen(row: &UsageRow, query: &UsageQuery) -> bool {
    row.user_id == query.user_id
        && query.function_id.is_none_or(|id| id == row.function_id)
        && query.from.is_none_or(|from| row.timestamp >= from)
        && query.to.is_none_or(|to| row.timestamp < to)
}

/// What the sums must be, from the rows themselves.
fn executed(rows: &[UsageRow], query: &UsageQuery) -> (u64, f64) {
    rows.iter().filter(|row| is_chosen(row, query)).fold((0, 0.0), |(n, gb), row| {
        (n + 1, gb + row.memory_mb / 1_024.0 * row.duration_ms / 1_000.0)
    })
}

/// All rows, page by page.
async fn pages(stores: &Stores, query: &UsageQuery, limit: u32) -> Vec<UsageRow> {
    let mut read = Vec::new();
    let mut cursor = None;
    loop {
        let page = stores.telemetry.usage_rows(query.clone(), limit, cursor.as_deref());
        let page = page.await.unwrap();
        assert!(page.items.len() <= limit as usize);
        read.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return read;
        }
    }
}

pub(crate) async fn sums_agree_with_the_rows(stores: &Stores) {
    let (ada, bob) = (UserId::new(), UserId::new());
    let functions = [FunctionId::new(), FunctionId::new(), FunctionId::new()];
    let midnight = NOON.div_euclid(DAY) * DAY;
    let mut rows = Vec::new();
    for day in 0..4 {
        for (number, offset) in [0, 1, DAY / 2, DAY - 1].into_iter().enumerate() {
            let mut row = usage(ada, functions[number % 2], midnight + day * DAY + offset);
            row.duration_ms = 1_000.0 * f64::from(u32::try_from(number).unwrap() + 1);
            rows.push(row);
        }
        rows.push(usage(bob, functions[2], midnight + day * DAY));
    }
    for batch in rows.chunks(3) {
        stores.telemetry.record(batch.to_vec(), Vec::new()).await.unwrap();
    }

    let edges = [0, 1, DAY / 2, DAY - 1, DAY, DAY + 1, 2 * DAY, 3 * DAY + 5, 4 * DAY];
    let ends = || std::iter::once(None).chain(edges.map(|e| Some(Timestamp(midnight + e))));
    for (from, to) in ends().flat_map(|from| ends().map(move |to| (from, to))) {
        for function_id in [None, Some(functions[0])] {
            let query = UsageQuery { user_id: ada, function_id, from, to };
            let (calls, gb_seconds) = executed(&rows, &query);
            let totals = stores.telemetry.usage_totals(query.clone()).await.unwrap();
            assert_eq!(totals.executed, calls, "{query:?}");
            assert!(close(totals.gb_seconds, gb_seconds), "{query:?}");
            let page = stores.telemetry.usage_rows(query, 100, None).await.unwrap();
            assert_eq!(page.items.len() as u64, calls);
        }
    }

    let span = UsageQuery {
        from: Some(Timestamp(midnight + DAY / 2)),
        to: Some(Timestamp(midnight + 2 * DAY + 1)),
        ..all_of(ada)
    };
    let days = stores.telemetry.usage_by_day(span).await.unwrap();
    let days: Vec<_> = days.iter().map(|d| (d.day.as_str(), d.totals.executed)).collect();
    assert_eq!(days, [("2023-11-14", 2), ("2023-11-15", 4), ("2023-11-16", 1)]);

    let mut expected: Vec<_> = rows.into_iter().filter(|row| row.user_id == ada).collect();
    expected.reverse();
    assert_eq!(pages(stores, &all_of(ada), 3).await, expected);
}

pub(crate) async fn calls_of_all_functions_are_in_one_order(stores: &Stores) {
    let (ada, bob) = (UserId::new(), UserId::new());
    let functions: Vec<_> = (0..12).map(|_| FunctionId::new()).collect();
    let midnight = NOON.div_euclid(DAY) * DAY;
    let mut rows = Vec::new();
    for day in [0, 1, 2, 9, 40, 41, 300] {
        let begin = midnight + day * DAY;
        for (n, id) in (0..).zip(&functions) {
            // One is called more than the others together. Some calls begin in the same moment.
            let calls = if n == 0 { 30 } else { (n + day) % 4 };
            rows.extend((0..calls).map(|call| usage(ada, *id, begin + call / 3)));
        }
        // Of one function, and somebody else is billed.
        rows.extend((0..3).map(|call| usage(bob, functions[0], begin + call)));
    }
    for batch in rows.rchunks(50) {
        stores.telemetry.record(batch.to_vec(), Vec::new()).await.unwrap();
    }

    rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.timestamp, row.execution_id)));
    let at = |day: i64, ms: i64| Some(Timestamp(midnight + day * DAY + ms));
    for (user_id, function_id, from, to) in [
        (ada, None, None, None),
        (bob, None, None, None),
        (ada, Some(functions[0]), None, None),
        (bob, Some(functions[0]), None, None),
        (ada, Some(functions[7]), at(1, 0), None),
        (ada, None, at(1, 1), at(40, 2)),
        (ada, None, at(2, 0), at(9, 0)),
        (ada, None, at(3, 0), at(9, 0)),
        (bob, None, at(41, 1), at(41, 2)),
    ] {
        let query = UsageQuery { user_id, function_id, from, to };
        let expected: Vec<_> = rows.iter().filter(|row| is_chosen(row, &query)).cloned().collect();
        for limit in [2, 9, 1_000] {
            assert_eq!(pages(stores, &query, limit).await, expected, "{limit}: {query:?}");
        }
        let totals = stores.telemetry.usage_totals(query.clone()).await.unwrap();
        assert_eq!(totals.executed, expected.len() as u64, "{query:?}");
    }
}

pub(crate) async fn logs_expire_and_usage_stays(stores: &Stores) {
    let (ada, id) = (UserId::new(), FunctionId::new());
    // More than one batch of deletes.
    let calls: Vec<_> = (0..4_500).map(|n| usage(ada, id, NOON + n)).collect();
    let logs: Vec<_> = (0..4_500).map(|n| log(id, NOON + n)).collect();
    stores.telemetry.record(calls, logs).await.unwrap();

    assert_eq!(stores.telemetry.expire_logs(Timestamp(NOON + 4_490)).await.unwrap(), 4_490);
    assert_eq!(stores.telemetry.expire_logs(Timestamp(NOON + 4_490)).await.unwrap(), 0);
    assert_eq!(stores.telemetry.logs(logs_of(id)).await.unwrap().rows.len(), 10);
    stores.telemetry.delete_logs(id).await.unwrap();
    assert!(stores.telemetry.logs(logs_of(id)).await.unwrap().rows.is_empty());
    assert_eq!(stores.telemetry.usage_totals(all_of(ada)).await.unwrap().executed, 4_500);
}

pub(crate) async fn logs_are_searched_by_level_and_text(stores: &Stores) {
    let id = FunctionId::new();
    let line = |level, message: &str| LogLine { level, message: message.into(), timestamp_ms: 1 };
    let rows: Vec<_> = (0..30)
        .map(|n| {
            let mut row = log(id, NOON + n);
            row.lines = vec![
                line(LogLevel::Info, &format!("Order {n} came")),
                line(if n % 3 == 0 { LogLevel::Error } else { LogLevel::Warn }, "Stra\u{df}e"),
            ];
            row
        })
        .collect();
    stores.telemetry.record(Vec::new(), rows).await.unwrap();
    for (levels, text, expected) in [
        (vec![], None, (30, 60)),
        (vec![LogLevel::Error], None, (10, 10)),
        (vec![LogLevel::Error, LogLevel::Info], None, (30, 40)),
        (vec![], Some("ORDER 2"), (11, 11)),
        (vec![], Some("STRA\u{df}E"), (30, 30)),
        (vec![LogLevel::Warn], Some("order"), (0, 0)),
        (vec![LogLevel::Debug], None, (0, 0)),
    ] {
        let filter = LogFilter::new(levels, text);
        let mut query = LogQuery { limit: 4, filter, ..logs_of(id) };
        let (mut n_rows, mut n_lines) = (0, 0);
        loop {
            let page = stores.telemetry.logs(query.clone()).await.unwrap();
            assert!(page.rows.len() <= 4);
            n_rows += page.rows.len();
            n_lines += page.rows.iter().map(|row| row.lines.len()).sum::<usize>();
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        assert_eq!((n_rows, n_lines), expected, "{:?}", query.filter);
    }
}

pub(crate) async fn a_tail_shows_what_is_recorded_from_then_on(stores: &Stores) {
    let (id, other) = (FunctionId::new(), FunctionId::new());
    let before = log(id, NOON);
    stores.telemetry.record(Vec::new(), vec![before.clone()]).await.unwrap();
    let start = stores.telemetry.log_tail(id, None, 10).await.unwrap();
    assert!(start.rows.is_empty());

    // The second began before all others and ended after them.
    let rows = [log(id, NOON + 5), log(id, NOON - 5), log(id, NOON + 6)];
    for row in &rows {
        stores.telemetry.record(Vec::new(), vec![row.clone(), log(other, NOON)]).await.unwrap();
    }
    let (mut seen, mut position) = (Vec::new(), start.position.clone());
    loop {
        let tail = stores.telemetry.log_tail(id, Some(&position), 2).await.unwrap();
        position = tail.position;
        if tail.rows.is_empty() {
            break;
        }
        seen.extend(tail.rows);
    }
    assert_eq!(seen, rows);
    // From the same place again, as a reader does that lost its connection.
    assert_eq!(stores.telemetry.log_tail(id, Some(&start.position), 9).await.unwrap().rows, rows);
    let refused = stores.telemetry.log_tail(id, Some("nonsense"), 9).await;
    assert!(matches!(refused, Err(StoreError::BadCursor)));
}

pub(crate) async fn a_tail_misses_nothing_when_logs_go(stores: &Stores) {
    let (id, other) = (FunctionId::new(), FunctionId::new());
    let rows = vec![log(id, NOON), log(other, NOON), log(other, NOON + 1)];
    stores.telemetry.record(Vec::new(), rows).await.unwrap();
    let mut position = stores.telemetry.log_tail(id, None, 10).await.unwrap().position;
    // The newest ones, and then all of them.
    stores.telemetry.delete_logs(other).await.unwrap();
    for n in 2..4 {
        let row = log(id, NOON + n);
        stores.telemetry.record(Vec::new(), vec![row.clone()]).await.unwrap();
        let tail = stores.telemetry.log_tail(id, Some(&position), 10).await.unwrap();
        assert_eq!(tail.rows, [row]);
        position = tail.position;
        stores.telemetry.delete_logs(id).await.unwrap();
    }
}

pub(crate) async fn a_tail_goes_on_within_one_millisecond(stores: &Stores) {
    let id = FunctionId::new();
    let mut position = stores.telemetry.log_tail(id, None, 10).await.unwrap().position;
    // Recorded at once: hundreds of them have the same time.
    let rows: Vec<_> = (0..600).map(|n| log(id, NOON + n)).collect();
    stores.telemetry.record(Vec::new(), rows.clone()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..10 {
        let tail = stores.telemetry.log_tail(id, Some(&position), 200).await.unwrap();
        position = tail.position;
        seen.extend(tail.rows);
    }
    seen.sort_unstable_by_key(|row| row.timestamp);
    assert_eq!(seen.len(), rows.len());
    assert!(seen == rows);
    let tail = stores.telemetry.log_tail(id, Some(&position), 200).await.unwrap();
    assert!(tail.rows.is_empty());
}

pub(crate) async fn usage_is_summed_by_function_and_latency_by_day(stores: &Stores) {
    let (ada, bob) = (UserId::new(), UserId::new());
    let mut functions = [FunctionId::new(), FunctionId::new()];
    functions.sort_unstable();
    let [often, once] = functions;
    let midnight = NOON.div_euclid(DAY) * DAY;
    let mut rows = Vec::new();
    for (owner, id, day, duration_ms) in [
        (ada, often, 0, 0.1),
        (ada, often, 0, 1.0),
        (ada, often, 1, 7_200_000.0),
        (ada, once, 1, 3.0),
        (bob, FunctionId::new(), 1, 3.0),
    ] {
        let mut row = usage(owner, id, midnight + day * DAY + 1);
        row.duration_ms = duration_ms;
        rows.push(row);
    }
    for _ in 0..2 {
        stores.telemetry.record(rows.clone(), Vec::new()).await.unwrap();
    }
    let by_function = |query| async move {
        let sums = stores.telemetry.usage_by_function(query).await.unwrap();
        sums.iter().map(|sum| (sum.function_id, sum.totals.executed)).collect::<Vec<_>>()
    };
    assert_eq!(by_function(all_of(ada)).await, [(often, 3), (once, 1)]);
    let only = UsageQuery { function_id: Some(once), ..all_of(ada) };
    assert_eq!(by_function(only.clone()).await, [(once, 1)]);
    let first_day = UsageQuery { to: Some(Timestamp(midnight + DAY)), ..all_of(ada) };
    assert_eq!(by_function(first_day.clone()).await, [(often, 2)]);
    let cut = UsageQuery { from: Some(Timestamp(midnight + DAY + 2)), ..all_of(ada) };
    assert!(by_function(cut.clone()).await.is_empty());

    let latency = |query| async move {
        let days = stores.telemetry.latency_by_day(query).await.unwrap();
        let mut sum = Latency::default();
        for day in &days {
            sum.add(&day.latency);
        }
        (days.into_iter().map(|day| day.day).collect::<Vec<_>>(), sum)
    };
    let (days, sum) = latency(all_of(ada)).await;
    assert_eq!(days, ["2023-11-14", "2023-11-15"]);
    let mut expected = Latency::default();
    for duration_ms in [0.1, 1.0, 3.0, 7_200_000.0] {
        expected.0[Latency::bucket(duration_ms)] += 1;
    }
    assert_eq!(sum, expected);
    assert_eq!(latency(only).await.1.calls(), 1);
    assert_eq!(latency(first_day).await.0, ["2023-11-14"]);
    // The day `from` is in is taken whole.
    assert_eq!(latency(cut).await.1.calls(), 2);
}
