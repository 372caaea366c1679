//! Usage over time.

use cloudserve_protocol::ids::{ExecutionId, FunctionId, UserId};
use cloudserve_store::Timestamp;
use cloudserve_store::telemetry::{CallStatus, UsageRow};
use serde_json::json;

use crate::support::Plane;

#[tokio::test]
async fn of_more_calls_than_are_read_the_newest_count_and_it_is_said_from_when_on() {
    const CALLS: i64 = 2_500;
    let plane = Plane::start_with(|options| options.series_rows = 1_500);
    let token = plane.register("ada").await;
    let body = json!({ "name": "f", "filename": "f.mjs", "code": "export default 1" });
    let view = plane.deploy(&token, &body).await;
    let function_id: FunctionId = view["id"].as_str().unwrap().parse().unwrap();
    let user_id: UserId = view["user"].as_str().unwrap().parse().unwrap();
    let begin = Timestamp::now().0 - CALLS * 1_000;
    let rows = (0..CALLS).map(|n| UsageRow {
        function_id,
        user_id,
        execution_id: ExecutionId::new(),
        version: 1,
        duration_ms: 1.0,
        cpu_ms: 1.0,
        memory_mb: 1.0,
        status: CallStatus::Success,
        code: "ok".into(),
        cold: false,
        timestamp: Timestamp(begin + n * 1_000),
    });
    plane.stores.telemetry.record(rows.collect(), Vec::new()).await.unwrap();

    let time = |n: i64| json!(Timestamp(begin + n * 1_000));
    let (from, to) = (time(0), time(CALLS));
    let (from, to) = (from.as_str().unwrap(), to.as_str().unwrap());
    let path = format!("/api/usage/series?from={from}&to={to}");
    let series = plane.get(&token, &path).await.expect(200).body;
    let points = series["points"].as_array().unwrap().iter();
    let counted: i64 = points.map(|point| point["executed"].as_i64().unwrap()).sum();
    assert!((1_500..CALLS).contains(&counted), "{counted}");
    assert_eq!(series["completeFrom"], time(CALLS - counted));
}
