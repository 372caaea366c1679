use super::*;

fn request() -> ToWorker {
    ToWorker::Request {
        call: 7,
        execution_id: ExecutionId::new(),
        budget_ms: 5_000,
        method: "POST".into(),
        target: "/a?b=c".into(),
        headers: [("content-type", "text/plain")].into_iter().collect(),
        body: Bytes::from_static(b"hello"),
        end: true,
        revocable: true,
        is_lone: true,
    }
}

#[test]
fn frames_round_trip_in_pieces() {
    let trailers = [("sum", "1")].into_iter().collect();
    let frames = [
        request(),
        ToWorker::Trailers { call: 7, trailers },
        ToWorker::Credit { call: 7, bytes: 9 },
        ToWorker::Drain,
    ];
    let mut wire = BytesMut::new();
    for frame in &frames {
        frame.encode(&mut wire);
    }

    let mut buffer = BytesMut::new();
    let mut got = Vec::new();
    for byte in wire {
        buffer.put_u8(byte);
        got.extend(ToWorker::decode(&mut buffer).unwrap());
    }
    assert_eq!(got, frames);
}

#[test]
fn worker_frames_round_trip() {
    let fault = Fault::timeout(5).with_detail("stack");
    let done = |fault| Done { fault, discard: false, cpu_us: 1, busy_us: 3, memory_bytes: 2 };
    for frame in [
        FromWorker::LoadFailed(fault.clone()),
        FromWorker::Head {
            call: 1,
            status: 201,
            headers: HeaderBlock::default(),
            body: Bytes::from_static(b"x"),
            end: false,
        },
        FromWorker::Chunk { call: 1, bytes: Bytes::new(), end: true },
        FromWorker::Trailers { call: 1, trailers: [("sum", "1")].into_iter().collect() },
        FromWorker::Log { call: 0, level: LogLevel::Warn, timestamp_ms: 3, message: "é".into() },
        FromWorker::Done { call: 1, done: done(None) },
        FromWorker::Done { call: 1, done: done(Some(fault)) },
    ] {
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        assert_eq!(FromWorker::decode(&mut wire).unwrap(), Some(frame));
    }
}

#[test]
fn hostile_frames_are_errors() {
    for bytes in [&b"\xff\xff\xff\xff\x01"[..], b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x63"] {
        assert!(FromWorker::decode(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
    }
    let mut wire = BytesMut::new();
    request().encode(&mut wire);
    let whole = wire.len();
    // A frame cut anywhere inside its fixed part, with a length field that says so.
    for cut in 5..40.min(whole) {
        let mut bytes = wire.clone();
        bytes.truncate(cut);
        let length = u32::try_from(cut - LENGTH_BYTES).unwrap();
        bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        assert!(ToWorker::decode(&mut bytes).is_err(), "{cut}");
    }
}

#[test]
fn a_frame_says_early_how_long_it_is_and_what_it_holds() {
    let announced = |frame: &FromWorker, so_far: usize| {
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        FromWorker::announced(&wire[..so_far])
    };
    let cache = FromWorker::CodeCache(Bytes::from_static(b"cache"));
    let credit = FromWorker::Credit { call: 1, bytes: 2 };
    assert_eq!(announced(&cache, 3), None);
    let log =
        FromWorker::Log { call: 1, level: LogLevel::Info, timestamp_ms: 2, message: String::new() };
    let head = FromWorker::Head {
        call: 1,
        status: 200,
        headers: HeaderBlock::default(),
        body: Bytes::new(),
        end: false,
    };
    let known = |length, holds| Some(Announced { length, holds });
    assert_eq!(announced(&cache, 4), known(6, None));
    assert_eq!(announced(&cache, 5), known(6, Some(Holds::CodeCache)));
    assert_eq!(announced(&credit, 13), known(9, Some(Holds::Other)));
    for (frame, holds) in [(&log, Holds::Other), (&head, Holds::Answer)] {
        assert_eq!(announced(frame, 5).and_then(|announced| announced.holds), Some(holds));
    }
}
