//! `admin export`, `import` and `verify`: an installation moves between the back ends with all it
//! has, and what is not whole, not empty or not openable is refused before anything is written; what
//! was imported is not served without its master key.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::servers;
use crate::support::{TestServer, cloudserve, deploy, signal, wait_for};

const SESSION_SECRET: &str = "6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c";
const OTHER_KEY: &str = "7a1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c6b1f0a4c";

type Settings<'a> = Vec<(&'static str, &'a str)>;

/// `cloudserve admin COMMAND FILE --json`, over a data directory or what the settings name.
fn admin(command: &str, file: &Path, data_dir: Option<&Path>, settings: &Settings<'_>) -> Command {
    let mut cli = cloudserve();
    cli.args(["admin", command, "--json"]).arg(file).envs(settings.iter().copied());
    if let Some(data_dir) = data_dir {
        cli.arg("--data-dir").arg(data_dir);
    }
    // A file of settings that is anybody's is none of theirs.
    cli.current_dir(file.parent().unwrap());
    cli
}

#[track_caller]
fn done(mut command: Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(mut command: Command, why: &str) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{command:?}: {said}");
    assert!(stdout.is_empty(), "{stdout:?}");
    assert!(said.contains(why), "{why:?} is not in {said}");
    said
}

/// What must be equal in archives of equal installations.
fn content(summary: &Value) -> [&Value; 4] {
    ["records", "versions", "objects", "masterKeys"].map(|part| &summary[part])
}

/// An embedded server with a function that was called, ended and exported.
struct Exported {
    home: crate::support::Home,
    owner: crate::support::Account,
    key: String,
    function: String,
    execution: String,
    master_key: String,
    directory: TempDir,
    file: PathBuf,
    summary: Value,
}

const CODE: &str = "import chunk from 'lodash/chunk.js';
    export default (event) => {
      console.log(`chunks for ${process.env.WHO}`);
      return [process.env.WHO, ...chunk([1, 2, 3], 2)];
    };";

async fn exported() -> Exported {
    let server = TestServer::start().await;
    let owner = server.register().await;
    // One that needs its dependency tree, and one that was called under an earlier version.
    let chunks = deploy("chunks", "chunks.mjs", CODE)
        .with("dependencies", json!({ "lodash": "4.17.21" }))
        .with("external", json!(["lodash"]))
        .with("env", json!({ "WHO": "a secret of ada" }));
    let function = owner.deploy(&chunks).await.id;
    owner.deploy(&deploy("two", "two.ts", "export default () => 1")).await;
    owner.deploy(&deploy("two", "two.ts", "export default () => 2")).await;
    let key = owner.key(&["invoke"]).await;
    let answer = owner.showing(&key).call("chunks").await.expect(200);
    assert_eq!(answer.json(), json!(["a secret of ada", [1, 2], [3]]));
    let execution = answer.execution().to_owned();
    owner.logs_of(&function, &execution).await;
    owner.usage_of(&function, &execution).await;
    let data_dir = server.data_dir();
    let mut quota = cloudserve();
    quota.args(["admin", "quota", &owner.user_name, "--calls-per-day", "77"]);
    assert!(quota.arg("--data-dir").arg(&data_dir).output().unwrap().status.success());

    let directory = tempfile::tempdir().unwrap();
    // Beside the running server: what it does meanwhile may be missing, and nothing is torn.
    let early = directory.path().join("early.tar.gz");
    done(admin("export", &early, Some(&data_dir), &Settings::new()));
    done(admin("verify", &early, None, &Settings::new()));

    let (status, home) = server.stop().await;
    assert!(status.success());
    let file = directory.path().join("all.tar.gz");
    let summary = done(admin("export", &file, Some(&home.data_dir()), &Settings::new()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let master_key = fs::read_to_string(home.data_dir().join("secrets/master-key")).unwrap();
    let master_key = master_key.trim().to_owned();
    Exported { home, owner, key, function, execution, master_key, directory, file, summary }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_to_mongodb_and_s3_and_back() {
    let (mongod, s3) = tokio::join!(servers::mongod(), servers::s3());
    let from = exported().await;
    let count = |kind: &str| from.summary["records"][kind]["count"].as_u64().unwrap();
    assert_eq!((count("users"), count("apiKeys"), count("functions")), (1, 1, 2 + 3));
    assert_eq!(
        (&from.summary["versions"], &from.summary["missingObjects"]),
        (&json!(3), &json!(0))
    );
    assert!(count("usages") >= 1 && count("logs") >= 1 && count("audit") >= 1, "{}", from.summary);
    assert!(from.summary["objects"]["count"].as_u64().unwrap() >= 8, "{}", from.summary);

    let name = servers::unique_name();
    let uri = format!("mongodb://{}/{name}?replicaSet=rs0", mongod.address);
    let endpoint = format!("http://{}", s3.address);
    let servers_with = |master_key| {
        let mut settings = vec![
            ("CLOUDSERVE_MONGODB_URI", uri.as_str()),
            ("CLOUDSERVE_S3_ENDPOINT", &endpoint),
            ("CLOUDSERVE_S3_BUCKET", &name),
            ("CLOUDSERVE_S3_ACCESS_KEY", servers::ACCESS_KEY),
            ("CLOUDSERVE_S3_SECRET_KEY", servers::SECRET_KEY),
            ("CLOUDSERVE_JWT_SECRET", SESSION_SECRET),
        ];
        settings.extend(Option::map(master_key, |key| ("CLOUDSERVE_MASTER_KEY", key)));
        settings
    };
    // The key is missing, or another one: which one it is is said.
    let id = from.summary["masterKeys"][0].as_str().unwrap();
    for key in [None, Some(OTHER_KEY)] {
        let said = refused(admin("import", &from.file, None, &servers_with(key)), id);
        assert!(said.contains("CLOUDSERVE_MASTER_KEY"), "{said}");
    }
    let settings = servers_with(Some(&from.master_key));
    for is_first in [true, false] {
        let summary = done(admin("import", &from.file, None, &settings));
        assert_eq!(content(&summary), content(&from.summary));
        let added = summary["addedRecords"].as_u64().unwrap();
        assert_eq!(added > 0, is_first, "{summary}");
        assert_eq!(summary["expiredRecords"], 0, "{summary}");
    }
    let file = from.directory.path().join("servers.tar.gz");
    let summary = done(admin("export", &file, None, &settings));
    assert_eq!(content(&summary), content(&from.summary));

    // The same password, the same key, the same function; what was logged and used is there.
    let server = TestServer::start_with(&settings).await;
    same_product(&from, &server).await;
    let (status, _) = server.stop().await;
    assert!(status.success());

    // And back, with what has come since, into a directory that knows the key from a file.
    let file = from.directory.path().join("servers-later.tar.gz");
    let later = done(admin("export", &file, None, &settings));
    assert_ne!(later["records"]["usages"], from.summary["records"]["usages"]);
    let data_dir = from.directory.path().join("fresh");
    fs::create_dir_all(data_dir.join("secrets")).unwrap();
    fs::write(data_dir.join("secrets/master-key"), &from.master_key).unwrap();
    done(admin("import", &file, Some(&data_dir), &Settings::new()));
    let file = from.directory.path().join("fresh.tar.gz");
    let back = done(admin("export", &file, Some(&data_dir), &Settings::new()));
    assert_eq!(content(&back), content(&later));
    let data_dir = data_dir.to_str().unwrap();
    let server = TestServer::start_with(&[("CLOUDSERVE_DATA_DIR", data_dir)]).await;
    same_product(&from, &server).await;
}

async fn same_product(from: &Exported, server: &TestServer) {
    let stranger = from.owner.at(&server.api, &server.gateway).showing("");
    let login = json!({ "email": from.owner.email, "password": from.owner.password });
    let answer = stranger.post("/api/auth/login", &login).await.expect(200).json();
    let owner = stranger.showing(answer["token"].as_str().unwrap());
    let answer = owner.showing(&from.key).call("chunks").await.expect(200);
    assert_eq!(answer.json(), json!(["a secret of ada", [1, 2], [3]]));
    assert_eq!(owner.call("two").await.expect(200).json(), 2);
    owner.usage_of(&from.function, answer.execution()).await;
    let logs = owner.logs_of(&from.function, &from.execution).await;
    // As it was written then: masked.
    assert_eq!(logs[0]["logs"][0]["message"], "chunks for ***", "{logs:#?}");
    let usage = owner.usage_of(&from.function, &from.execution).await;
    assert_eq!((usage.len(), &usage[0]["status"]), (1, &json!("success")));
    let quota = owner.get("/api/account/quota").await.expect(200).json();
    assert_eq!(quota["callsPerDay"]["limit"].as_f64(), Some(77.0), "{quota}");
    // Another version is built of what was moved.
    let next = format!("/api/function/redeploy/{}?wait=true", from.function);
    let view = owner.post(&next, &json!({})).await.expect(200).json();
    assert_eq!(view["status"], "active", "{view:#}");
    owner.showing(&from.key).call("chunks").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_whole_or_does_not_fit_is_refused() {
    let from = exported().await;
    let none = Settings::new();
    let at = |name: &str| from.directory.path().join(name);
    let archive = fs::read(&from.file).unwrap();
    let target = at("target");
    let import = |file: &Path| admin("import", file, Some(&target), &none);

    for (share, what) in [(0, "not "), (10, "not whole"), (90, "not whole"), (99, "not whole")] {
        let cut = at("cut.tar.gz");
        fs::write(&cut, &archive[..archive.len() * share / 100]).unwrap();
        for command in [import(&cut), admin("verify", &cut, None, &none)] {
            refused(command, what);
        }
    }
    for share in [20, 50, 80, 99] {
        let flipped = at("flipped.tar.gz");
        let mut bytes = archive.clone();
        let place = bytes.len() * share / 100;
        bytes[place] ^= 0x10;
        fs::write(&flipped, bytes).unwrap();
        for command in [import(&flipped), admin("verify", &flipped, None, &none)] {
            refused(command, "the archive is ");
        }
    }
    for (file, why) in
        [("newer.tar.gz", "use a newer cloudserve"), ("other.tar.gz", "not an export")]
    {
        let opening = match file {
            "newer.tar.gz" => {
                json!({ "product": "cloudserve", "format": 99, "schema": 1, "more": 1 })
            }
            _ => json!({ "product": "another" }),
        };
        fs::write(at(file), archive_of("cloudserve.json", &opening.to_string())).unwrap();
        refused(import(&at(file)), why);
    }
    refused(import(&at("absent.tar.gz")), "cannot be opened");
    // Nothing was written by any of these: without the key this is refused for its sake alone.
    let id = from.summary["masterKeys"][0].as_str().unwrap();
    refused(import(&from.file), id);

    // Somebody else's installation stays what it is, and so does one that is in use.
    let other = TestServer::start().await;
    other.register().await;
    refused(admin("import", &from.file, Some(&other.data_dir()), &none), "in use");
    let (_, home) = other.stop().await;
    let with_key = vec![("CLOUDSERVE_MASTER_KEY", from.master_key.as_str())];
    let before = done(admin("export", &at("other-1.tar.gz"), Some(&home.data_dir()), &none));
    refused(admin("import", &from.file, Some(&home.data_dir()), &with_key), "not empty");
    let after = done(admin("export", &at("other-2.tar.gz"), Some(&home.data_dir()), &none));
    assert_eq!(content(&after), content(&before));
    // The same in its own installation, which has all of it, changes nothing.
    let own = done(admin("import", &from.file, Some(&from.home.data_dir()), &none));
    assert_eq!((&own["addedRecords"], &own["addedObjects"]), (&json!(0), &json!(0)));

    // With the key in the environment alone the target does not know it later, and makes no other.
    done(admin("import", &from.file, Some(&target), &with_key));
    let said =
        TestServer::start_refused(&[("CLOUDSERVE_DATA_DIR", target.to_str().unwrap())]).await;
    assert!(said.contains(id) && said.contains("CLOUDSERVE_MASTER_KEY"), "{said}");
    let mut rotate = cloudserve();
    rotate.args(["admin", "rotate-master-key", "--data-dir"]).arg(&target);
    refused(rotate, id);
    assert!(!target.join("secrets").exists());

    refused(admin("export", &from.file, Some(&from.home.data_dir()), &none), "is there already");
    refused(admin("export", &at("nothing.tar.gz"), Some(&at("nowhere")), &none), "no installation");
    let left: Vec<_> = fs::read_dir(from.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// An archive with one file in it.
fn archive_of(name: &str, text: &str) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_was_killed_is_run_again() {
    let from = exported().await;
    let settings = vec![("CLOUDSERVE_MASTER_KEY", from.master_key.as_str())];
    let mut was_cut_off = false;
    for round in 0..5 {
        let target = from.directory.path().join(format!("target-{round}"));
        let note = target.join("importing");
        let mut import = admin("import", &from.file, Some(&target), &settings);
        let mut child = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the import to write", || {
            let (begun, ended) = (note.exists(), child.try_wait().unwrap().is_some());
            async move { (begun || ended).then_some(()) }
        })
        .await;
        signal(child.id(), libc::SIGKILL);
        child.wait().unwrap();
        if note.exists() {
            was_cut_off = true;
            let file = from.directory.path().join("part.tar.gz");
            refused(admin("export", &file, Some(&target), &settings), "not finished");
            let dir = target.to_str().unwrap().to_owned();
            let said = TestServer::start_refused(&[("CLOUDSERVE_DATA_DIR", &dir)]).await;
            assert!(said.contains("not finished"), "{said}");
        }
        let summary = done(admin("import", &from.file, Some(&target), &settings));
        assert_eq!(content(&summary), content(&from.summary));
        assert!(!note.exists());
        let file = from.directory.path().join(format!("again-{round}.tar.gz"));
        let again = done(admin("export", &file, Some(&target), &settings));
        assert_eq!(content(&again), content(&from.summary));
    }
    assert!(was_cut_off, "no import was caught in the middle");
}
