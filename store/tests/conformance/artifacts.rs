//! Objects.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cloudserve_protocol::artifact::{ArtifactError, ArtifactKey, ListedObject};
use cloudserve_protocol::ids::{BundleHash, DepHash, FunctionId};
use cloudserve_store::Stores;
use futures::TryStreamExt;

fn source(function: FunctionId, path: &str) -> ArtifactKey {
    ArtifactKey::Source { function, version: 1, path: path.into() }
}

async fn collected(stores: &Stores, key: &ArtifactKey) -> Vec<u8> {
    let pieces: Vec<Bytes> =
        stores.artifacts.stream(key).await.unwrap().try_collect().await.unwrap();
    assert!(pieces.iter().all(|piece| piece.len() <= 256 * 1024));
    pieces.concat()
}

pub(crate) async fn objects_round_trip(stores: &Stores) {
    let function = FunctionId::new();
    let hash = BundleHash::of(b"x");
    let deps = DepHash::of(b"y");
    let keys = [
        source(function, "index.ts"),
        source(function, "src/deep/er/index.ts"),
        source(function, "...weird name \u{e9}.ts"),
        ArtifactKey::PackageJson { function },
        ArtifactKey::Bundle { function, hash: hash.clone() },
        ArtifactKey::SourceMap { function, hash },
        ArtifactKey::DependencyTree { hash: deps.clone() },
        ArtifactKey::DependencyMetadata { hash: deps },
        ArtifactKey::Resolution { spec_hash: "ab".repeat(32) },
    ];
    for key in &keys {
        assert!(!stores.artifacts.exists(key).await.unwrap());
        let missing = stores.artifacts.get(key, 10).await;
        assert!(matches!(missing, Err(ArtifactError::NotFound { .. })), "{missing:?}");
        assert!(matches!(
            stores.artifacts.stream(key).await.err(),
            Some(ArtifactError::NotFound { .. })
        ));
        let bytes = Bytes::from(key.to_string());
        stores.artifacts.put(key, bytes.clone()).await.unwrap();
        assert!(stores.artifacts.exists(key).await.unwrap());
        let length = bytes.len() as u64;
        assert_eq!(stores.artifacts.get(key, length).await.unwrap(), bytes);
        assert_eq!(collected(stores, key).await, bytes);
        let bound = stores.artifacts.get(key, length - 1).await;
        assert!(matches!(bound, Err(ArtifactError::TooLarge { .. })), "{bound:?}");
    }

    // What is a directory here, or lies below a file, is no object anywhere.
    for path in ["src", "src/deep", "index.ts/below"] {
        let key = source(function, path);
        assert!(!stores.artifacts.exists(&key).await.unwrap());
        let missing = stores.artifacts.get(&key, 10_000).await;
        assert!(matches!(missing, Err(ArtifactError::NotFound { .. })), "{missing:?}");
    }

    // Replacing, the empty object, and an object of several pieces, from a file.
    let key = &keys[0];
    stores.artifacts.put(key, Bytes::new()).await.unwrap();
    assert_eq!(stores.artifacts.get(key, 0).await.unwrap(), Bytes::new());
    assert!(collected(stores, key).await.is_empty());
    let large: Vec<u8> = (0..1_000_003_u32).map(|n| n.to_le_bytes()[0]).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &large).unwrap();
    stores.artifacts.put_file(key, file.path()).await.unwrap();
    std::fs::write(file.path(), b"changed afterwards").unwrap();
    assert_eq!(collected(stores, key).await, large);
}

pub(crate) async fn hostile_keys_stay_inside(stores: &Stores) {
    let function = FunctionId::new();
    let mut keys: Vec<_> =
        ["", ".", "..", "../x", "a/../../../../x", "/etc/passwd", "a//b", "a/", "a/./b", "a\0b"]
            .into_iter()
            .map(|path| source(function, path))
            .collect();
    keys.push(ArtifactKey::Resolution { spec_hash: "../../../x".into() });
    for key in keys {
        let put = stores.artifacts.put(&key, Bytes::from_static(b"x")).await;
        assert!(matches!(put, Err(ArtifactError::Backend { .. })), "{key:?}");
        assert!(stores.artifacts.get(&key, 100_000).await.is_err(), "{key:?}");
        assert!(stores.artifacts.exists(&key).await.is_err(), "{key:?}");
        assert!(stores.artifacts.stream(&key).await.is_err(), "{key:?}");
    }
}

pub(crate) async fn readers_see_all_or_nothing(stores: &Stores) {
    let key = ArtifactKey::PackageJson { function: FunctionId::new() };
    let body = |number: u8| Bytes::from(vec![number; 300_000]);
    stores.artifacts.put(&key, body(0)).await.unwrap();
    let writers = (0..2).map(|writer| {
        let (artifacts, key) = (stores.artifacts.clone(), key.clone());
        tokio::spawn(async move {
            for round in 0..8 {
                artifacts.put(&key, body(writer * 8 + round)).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    while writers.iter().any(|writer| !writer.is_finished()) {
        for read in [
            stores.artifacts.get(&key, 300_000).await.unwrap().to_vec(),
            collected(stores, &key).await,
        ] {
            assert_eq!(read.len(), 300_000);
            assert!(read.iter().all(|byte| *byte == read[0]), "a mixture");
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

pub(crate) async fn deletion_leaves_other_functions_and_trees(stores: &Stores) {
    let (gone, kept) = (FunctionId::new(), FunctionId::new());
    let tree = ArtifactKey::DependencyTree { hash: DepHash::of(b"deps") };
    let keys = [source(gone, "a/b.ts"), source(kept, "a/b.ts"), tree];
    for key in &keys {
        stores.artifacts.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    stores.artifacts.delete_function(gone).await.unwrap();
    stores.artifacts.delete_function(gone).await.unwrap();
    let exist = [
        stores.artifacts.exists(&keys[0]).await.unwrap(),
        stores.artifacts.exists(&keys[1]).await.unwrap(),
        stores.artifacts.exists(&keys[2]).await.unwrap(),
    ];
    assert_eq!(exist, [false, true, true]);
    // Directories that are gone are made again.
    stores.artifacts.put(&keys[0], Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(stores.artifacts.get(&keys[0], 1).await.unwrap(), "y");
}

pub(crate) async fn one_object_is_deleted_alone(stores: &Stores) {
    let function = FunctionId::new();
    let keys = [source(function, "a/b.ts"), source(function, "a/c.ts")];
    for key in &keys {
        stores.artifacts.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    for _ in 0..2 {
        stores.artifacts.delete(&keys[0]).await.unwrap();
    }
    // What is a directory here is no object anywhere.
    stores.artifacts.delete(&source(function, "a")).await.unwrap();
    stores.artifacts.delete(&source(function, "a/c.ts/d")).await.unwrap();
    assert!(!stores.artifacts.exists(&keys[0]).await.unwrap());
    assert!(stores.artifacts.exists(&keys[1]).await.unwrap());
    assert!(stores.artifacts.delete(&source(function, "../x")).await.is_err());
    stores.artifacts.put(&keys[0], Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(stores.artifacts.get(&keys[0], 1).await.unwrap(), "y");
}

pub(crate) async fn objects_of_a_function_are_listed_with_their_age(stores: &Stores) {
    let (function, other) = (FunctionId::new(), FunctionId::new());
    let hash = BundleHash::of(b"x");
    let mut keys = vec![
        source(function, "a/b.ts"),
        source(function, "a/c d/\u{e9}.ts"),
        ArtifactKey::PackageJson { function },
        ArtifactKey::Bundle { function, hash: hash.clone() },
        ArtifactKey::SourceMap { function, hash: hash.clone() },
        ArtifactKey::Assets { function, hash },
    ];
    let others =
        [source(other, "a/b.ts"), ArtifactKey::DependencyTree { hash: DepHash::of(b"deps") }];
    for key in keys.iter().chain(&others) {
        stores.artifacts.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    let list = async |id| -> Vec<ListedObject> {
        let mut listed: Vec<ListedObject> = stores.artifacts.list(id).try_collect().await.unwrap();
        listed.sort_by_key(|object: &ListedObject| object.key.to_string());
        listed
    };
    let listed = list(function).await;
    keys.sort_by_key(ToString::to_string);
    assert_eq!(listed.iter().map(|object| object.key.clone()).collect::<Vec<_>>(), keys);
    // Both clocks are of this machine; some stores tell full seconds.
    let (now, hour) = (SystemTime::now(), Duration::from_hours(1));
    for object in &listed {
        assert!(object.stored_at < now + hour && now < object.stored_at + hour, "{object:?}");
    }

    // What is stored again is young again.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let again = source(function, "a/b.ts");
    stores.artifacts.put(&again, Bytes::from_static(b"x")).await.unwrap();
    let of = |listed: &[ListedObject]| {
        listed.iter().find(|object| object.key == again).unwrap().stored_at
    };
    assert!(of(&list(function).await) > of(&listed));
    stores.artifacts.delete_function(function).await.unwrap();
    assert!(list(function).await.is_empty());
    assert_eq!(list(other).await.len(), 1);
}

pub(crate) async fn objects_of_dependencies_are_listed_in_order(stores: &Stores) {
    let mut keys = Vec::new();
    for of in [&b"a"[..], b"b", b"c"] {
        let hash = DepHash::of(of);
        keys.push(ArtifactKey::Resolution { spec_hash: hash.to_string() });
        keys.push(ArtifactKey::DependencyTree { hash: hash.clone() });
        keys.push(ArtifactKey::DependencyMetadata { hash });
    }
    for key in keys.iter().chain([&source(FunctionId::new(), "a.ts")]) {
        stores.artifacts.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    keys.sort_by_key(ToString::to_string);
    let list = async |after: Option<&ArtifactKey>| -> Vec<ArtifactKey> {
        let listed: Vec<ListedObject> =
            stores.artifacts.list_dependencies(after).try_collect().await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    };
    assert_eq!(list(None).await, keys);
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(list(Some(key)).await, keys[n + 1..]);
    }
    // What a listing goes on from may be gone.
    stores.artifacts.delete(&keys[1]).await.unwrap();
    assert_eq!(list(Some(&keys[1])).await, keys[2..]);
}
