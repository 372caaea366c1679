//! Every byte of an archive counts.

use std::fs;
use std::io::{self, Read};

use cloudserve_protocol::artifact::ArtifactKey;
use cloudserve_protocol::call::HandlerKind;
use cloudserve_protocol::ids::{BundleHash, DepHash, FunctionId, SourceHash, UserId};
use cloudserve_protocol::limits::Limits;
use cloudserve_store::account::{Quota, User};
use cloudserve_store::function::{
    BuiltVersion, DeployStatus, SealedEnv, Source, Version, Visibility,
};
use cloudserve_store::transfer::{Key, Kind, Record, RevokedToken, StoredFunction, StoredObject};
use cloudserve_store::{StoreError, Timestamp};

use super::{ArchiveError, ArchiveWriter, Manifest, Step, Visitor, read};
use crate::admin::export::records;

/// What was read, as text.
#[derive(Default, PartialEq, Debug)]
struct Seen(Vec<String>);

impl Visitor for Seen {
    type Error = ArchiveError;

    fn record(&mut self, record: Record, _: usize) -> Result<Step, ArchiveError> {
        self.0.push(record.to_line().unwrap());
        Ok(Step::On)
    }

    fn object(
        &mut self,
        object: &StoredObject,
        content: &mut dyn Read,
    ) -> Result<Step, ArchiveError> {
        let mut text = String::new();
        // The reader of the archive finds out by itself what is wrong with it.
        let _ = content.read_to_string(&mut text);
        self.0.push(format!("{} {} {text}", object.key, object.bytes));
        Ok(Step::On)
    }
}

fn write(objects: &[(&str, &str)]) -> io::Result<(Vec<u8>, Manifest)> {
    let mut archive = ArchiveWriter::begin(Vec::new())?;
    for n in 0..3 {
        let token =
            RevokedToken { token_id: format!("token {n}"), expires_at: Timestamp(1_700_000) };
        archive.record(&Record::RevokedToken(token))?;
    }
    archive.end_records(Kind::RevokedTokens)?;
    archive.record(&Record::User(User {
        id: UserId::from_bytes([7; 16]),
        full_name: "Ada Lovelace".to_owned(),
        user_name: "ada".parse().unwrap(),
        email: "ada@example.org".to_owned(),
        password_hash: "$argon2id$".to_owned(),
        quota: Quota::default(),
        created_at: Timestamp(1),
    }))?;
    archive.end_records(Kind::Users)?;
    for (key, text) in objects {
        archive.object(key, text.len() as u64, &mut text.as_bytes())?;
    }
    archive.finish()
}

fn read_bytes(bytes: &[u8]) -> Result<(Seen, Manifest), ArchiveError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let mut seen = Seen::default();
    let manifest = read(file.path(), &mut seen)?.unwrap();
    Ok((seen, manifest))
}

#[test]
fn an_archive_is_read_as_it_was_written() {
    let long = format!("b/{}/c", "x".repeat(300));
    let (bytes, written) = write(&[("a/b", ""), ("a/c", "text"), (&long, "long")]).unwrap();
    let (seen, manifest) = read_bytes(&bytes).unwrap();
    assert_eq!(manifest, written);
    assert_eq!(seen.0.len(), 4 + 3);
}

#[test]
fn no_byte_may_be_missing_or_wrong() {
    let (bytes, written) = write(&[("a/b", "text"), ("a/c", "more text")]).unwrap();
    let (all, _) = read_bytes(&bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(read_bytes(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    let mut harmless = 0;
    for place in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut damaged = bytes.clone();
            damaged[place] ^= bit;
            // Some say nothing about what is in it: when it was compressed, or where zeros are
            // copied from.
            if let Ok((seen, manifest)) = read_bytes(&damaged) {
                assert_eq!((&seen, &manifest), (&all, &written), "byte {place}");
                harmless += 1;
            }
        }
    }
    assert!(harmless * 5 < bytes.len() * 2, "{harmless} changes were not found out");
    let longer = [&bytes[..], b"x"].concat();
    assert!(read_bytes(&longer).is_err());
}

fn version(function: FunctionId) -> Version {
    Version {
        function_id: function,
        version: 1,
        status: DeployStatus::Active,
        error: None,
        source: Source { stored_version: 1, entry: "index.ts".to_owned(), ..Source::default() },
        source_hash: SourceHash::of(b""),
        // Format 2, and the id of a key.
        env: SealedEnv(vec![2, 0xab, 0xcd, 0, 0, 0, 0, 0, 1, 9, 9]),
        limits: Limits::default(),
        built: Some(BuiltVersion {
            bundle_hash: BundleHash::of(b"bundle"),
            bundle_bytes: 6,
            beside_bytes: 0,
            dep_hash: Some(DepHash::of(b"deps")),
            dependency_cache: None,
            needs_tree: true,
            handler_kind: HandlerKind::Event,
        }),
        created_at: Timestamp(1),
        makes_public: false,
    }
}

#[test]
fn what_versions_need_is_told() {
    let function = FunctionId::new();
    let bundle = ArtifactKey::Bundle { function, hash: BundleHash::of(b"bundle") };
    let tree = ArtifactKey::DependencyTree { hash: DepHash::of(b"deps") };
    for (keys, missing) in [(vec![], 2), (vec![&bundle], 1), (vec![&bundle, &tree], 0)] {
        let mut archive = ArchiveWriter::begin(Vec::new()).unwrap();
        archive.record(&Record::Version(version(function))).unwrap();
        archive.end_records(Kind::Functions).unwrap();
        for key in keys {
            archive.object(&key.to_string(), 1, &mut &b"x"[..]).unwrap();
        }
        let (bytes, written) = archive.finish().unwrap();
        assert_eq!((written.versions, written.missing_objects), (1, missing));
        assert_eq!(written.master_keys, ["abcd000000000001".to_owned()].into());
        assert_eq!(read_bytes(&bytes).unwrap().1, written);
    }
}

/// A function of an account, and its only version.
fn function(number: u8, account: u8, name: &str) -> [Record; 2] {
    let id = FunctionId::from_bytes([number; 16]);
    let function = StoredFunction {
        id,
        user_id: UserId::from_bytes([account; 16]),
        name: name.parse().unwrap(),
        latest_version: 1,
        active_version: Some(1),
        settled_version: 1,
        visibility: Visibility::Private,
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
        deployed_at: Some(Timestamp(1)),
    };
    [Record::Function(function), Record::Version(version(id))]
}

#[test]
fn a_function_that_is_deployed_again_between_two_pages_is_exported_once() {
    let pages = [
        function(1, 7, "a").to_vec(),
        [function(2, 7, "a"), function(3, 7, "b"), function(4, 8, "a")].concat(),
    ];
    let read = |kind: Kind, after: Option<&Key>| -> Result<Vec<Record>, StoreError> {
        // Keys are in order, over all pages.
        let is_next = |page: &&Vec<Record>| Some(&page[0].key()) > after;
        let next = pages.iter().filter(|_| kind == Kind::Functions).find(is_next);
        Ok(next.cloned().unwrap_or_default())
    };
    let mut archive = ArchiveWriter::begin(Vec::new()).unwrap();
    records(read, &mut archive, |error| panic!("{error}")).unwrap();
    let (bytes, written) = archive.finish().unwrap();
    let (seen, manifest) = read_bytes(&bytes).unwrap();
    assert_eq!((&manifest, manifest.versions), (&written, 3));
    let expected = [function(1, 7, "a"), function(3, 7, "b"), function(4, 8, "a")].concat();
    let expected: Vec<_> = expected.iter().map(|record| record.to_line().unwrap()).collect();
    assert_eq!(seen.0, expected);
}

#[test]
fn two_functions_of_one_account_and_name_are_refused() {
    let mut archive = ArchiveWriter::begin(Vec::new()).unwrap();
    for record in [function(1, 7, "a"), function(2, 7, "a")].concat() {
        archive.record(&record).unwrap();
    }
    archive.end_records(Kind::Functions).unwrap();
    let (bytes, _) = archive.finish().unwrap();
    let error = read_bytes(&bytes).err().unwrap();
    assert!(error.to_string().contains("two functions \"a\""), "{error}");
}

#[test]
fn an_object_of_another_size_than_it_was_to_have_is_an_error() {
    for announced in [3, 5] {
        let mut archive = ArchiveWriter::begin(Vec::new()).unwrap();
        assert!(archive.object("a/b", announced, &mut &b"text"[..]).is_err(), "{announced}");
    }
}
