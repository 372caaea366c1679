//! Limits that a deploy sends: only those that change.

use cloudserve_protocol::limits::{EventFormat, Limits};
use serde_json::{Map, Value};

use super::refusal::{FieldErrors, Refusal};

/// Limits somebody sent: only the fields they named.
#[derive(Debug, Clone)]
pub(crate) struct LimitsPatch(pub(crate) Map<String, Value>);

impl LimitsPatch {
    /// The limits with what was sent in the place of what was there.
    pub(super) fn apply(self, base: Limits) -> Result<Limits, Refusal> {
        self.check()?;
        let Ok(Value::Object(mut fields)) = serde_json::to_value(base) else {
            return Err(Refusal::internal("limits are no object"));
        };
        fields.extend(self.0);
        let limits: Limits = serde_json::from_value(Value::Object(fields))
            .map_err(|error| Refusal::field("limits", error.to_string()))?;
        limits.validated().map_err(|error| {
            Refusal::field(
                format!("limits.{}", error.name),
                format!("must be between {} and {}, not {}", error.min, error.max, error.value),
            )
        })
    }

    /// Names every limit with a wrong value: read as a whole, they are refused without their names.
    fn check(&self) -> Result<(), Refusal> {
        let mut wrong = FieldErrors::new();
        for ((name, min), (_, max)) in Limits::MIN.numbers().into_iter().zip(Limits::MAX.numbers())
        {
            let is_within = |sent: &Value| sent.as_u64().is_some_and(|n| (min..=max).contains(&n));
            if let Some(sent) = self.0.get(name)
                && !is_within(sent)
            {
                let told = format!("must be a whole number between {min} and {max}, not {sent}");
                wrong.insert(format!("limits.{name}"), told);
            }
        }
        let format = self.0.get("eventFormat").cloned();
        if let Some(Err(error)) = format.map(serde_json::from_value::<EventFormat>) {
            wrong.insert("limits.eventFormat".to_owned(), error.to_string());
        }
        if wrong.is_empty() { Ok(()) } else { Err(Refusal::Invalid(wrong)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(sent: Value) -> Result<Limits, Refusal> {
        let Value::Object(sent) = sent else { panic!("limits are an object") };
        LimitsPatch(sent).apply(Limits::default())
    }

    #[test]
    fn every_wrong_limit_is_named() {
        let sent = json!({
            "timeoutMs": "5000", "cpuMs": 5_000_000_000_u64, "memoryMb": -1, "concurrency": 1.5,
            "logBytes": null, "eventFormat": "json", "requestBodyBytes": 0,
        });
        let Err(Refusal::Invalid(wrong)) = apply(sent) else { panic!("they are wrong") };
        let named: Vec<_> = wrong.keys().map(String::as_str).collect();
        assert_eq!(
            named,
            [
                "limits.concurrency",
                "limits.cpuMs",
                "limits.eventFormat",
                "limits.logBytes",
                "limits.memoryMb",
                "limits.timeoutMs",
            ]
        );
        assert_eq!(
            wrong["limits.timeoutMs"],
            "must be a whole number between 10 and 900000, not \"5000\""
        );
        assert!(wrong["limits.eventFormat"].contains("lambda-v1"), "{wrong:?}");
        let Err(Refusal::Invalid(unknown)) = apply(json!({ "memory": 1 })) else { panic!("wrong") };
        assert!(unknown["limits"].contains("memoryMb"), "{unknown:?}");
    }

    #[test]
    fn what_is_not_sent_stays() {
        let limits = apply(json!({ "memoryMb": 256, "eventFormat": "lambda" })).unwrap();
        let expected =
            Limits { memory_mb: 256, event_format: EventFormat::Lambda, ..Limits::default() };
        assert_eq!(limits, expected);
    }
}
