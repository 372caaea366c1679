use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("project-").tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn sent(dir: &Path) -> Vec<String> {
    Project::at(dir).unwrap().files().unwrap().sent.into_keys().collect()
}

#[test]
fn what_is_ignored_or_secret_is_not_sent() {
    let dir = folder(&[
        (".gitignore", "dist/\n*.log\n"),
        (".cloudserveignore", "test/\n"),
        ("index.ts", "1"),
        ("lib/a.ts", "1"),
        ("lib/a.log", "1"),
        ("dist/index.js", "1"),
        ("test/a.test.ts", "1"),
        ("node_modules/x/index.js", "1"),
        ("packages/a/node_modules/x/index.js", "1"),
        (".cloudserve/dev/x.js", "1"),
        (".env", "KEY=1"),
        (".env.production", "KEY=1"),
        (".env.example", "KEY="),
        (".npmrc", "token"),
        (FILE, "[function]\nname = 'a'\n"),
    ]);
    let expected = [".env.example", "index.ts", "lib/a.ts"];
    assert_eq!(sent(dir.path()), expected);
}

#[test]
fn links_are_left_out_and_said() {
    let dir = folder(&[("index.js", "1")]);
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("secret")).unwrap();
    let files = Project::at(dir.path()).unwrap().files().unwrap();
    assert_eq!(files.sent.len(), 1);
    assert_eq!(files.left_out, ["secret (it is a link)"]);
}

#[test]
fn lock_files_that_are_not_heeded_are_known() {
    let dir = folder(&[("index.js", "1"), ("yarn.lock", "1")]);
    let lock = |path: &str| {
        let project = Project::at(&dir.path().join(path)).unwrap();
        project.idle_lock_file(&project.files().unwrap())
    };
    assert_eq!((lock("."), lock("index.js")), (Some("yarn.lock"), None));
    fs::write(dir.path().join("package.json"), "{}").unwrap();
    assert_eq!((lock("."), lock("index.js")), (Some("yarn.lock"), Some("yarn.lock")));
    fs::write(dir.path().join("package-lock.json"), "{}").unwrap();
    assert_eq!((lock("."), lock("index.js")), (None, None));
}

#[test]
fn a_single_file_comes_with_its_packages_and_the_lock_file_that_counts() {
    let dir = folder(&[("f.js", "1"), ("g.js", "1"), ("package.json", "{}")]);
    let body = || {
        let project = Project::at(&dir.path().join("f.js")).unwrap();
        project.body(&"f".parse().unwrap(), &project.files().unwrap()).unwrap()
    };
    let expected = json!({ "name": "f", "filename": "f.js", "code": "1", "packageJson": "{}" });
    assert_eq!(body(), expected);
    for lock in ["package-lock.json", "npm-shrinkwrap.json"] {
        fs::write(dir.path().join(lock), lock).unwrap();
        assert_eq!(body()["packageLock"], lock);
    }
}

#[test]
fn what_is_too_large_is_not_read() {
    let dir = folder(&[("index.js", "1")]);
    let image = fs::File::create(dir.path().join("disk.img")).unwrap();
    // Nothing on the disk; in memory all of it.
    image.set_len(1 << 40).unwrap();
    let error = Project::at(dir.path()).unwrap().files().unwrap_err();
    assert!(error.to_string().contains("holds more than any function"), "{error}");
}

#[test]
fn a_deploy_says_what_the_project_says() {
    let toml = "data_dir = 'for serve'\n[function]\nname = 'greet'\nvisibility = 'public'\n\
                entry = 'src/a.ts'\nexternal = ['sharp']\n\
                [function.limits]\ntimeoutMs = 1000\n[function.dependencies]\naxios = '^1'\n";
    let dir = folder(&[(FILE, toml), ("src/a.ts", "export default 1")]);
    fs::write(dir.path().join("logo.png"), [0x89, 0xff]).unwrap();
    let project = Project::at(dir.path()).unwrap();
    let name = project.name(None).unwrap();
    let body = project.body(&name, &project.files().unwrap()).unwrap();
    let expected = json!({
        "name": "greet",
        "files": { "logo.png": { "base64": "if8=" }, "src/a.ts": "export default 1" },
        "entry": "src/a.ts",
        "visibility": "public",
        "external": ["sharp"],
        "dependencies": { "axios": "^1" },
        "limits": { "timeoutMs": 1000 },
    });
    assert_eq!(body, expected);
    assert_eq!(project.name(Some("other")).unwrap().as_str(), "other");
}

#[test]
fn a_file_is_deployed_by_itself() {
    let dir = folder(&[
        ("hello.world.ts", "1"),
        ("other.ts", "2"),
        ("package.json", "{}"),
        (FILE, "[function]\nname = 'not-this'\n"),
    ]);
    let mut project = Project::at(&dir.path().join("hello.world.ts")).unwrap();
    let packages = ["@a/b@^1", "lodash", "old@npm:@a/new@^1"].map(str::to_owned);
    project.settings.depend_on(&packages);
    let name = project.name(None).unwrap();
    let body = project.body(&name, &project.files().unwrap()).unwrap();
    let expected = json!({
        "name": "hello", "filename": "hello.world.ts", "code": "1", "packageJson": "{}",
        "dependencies": { "@a/b": "^1", "lodash": "*", "old": "npm:@a/new@^1" },
    });
    assert_eq!(body, expected);
}

#[test]
fn what_is_wrong_with_a_project_is_said_with_the_next_step() {
    let typo = folder(&[(FILE, "[function]\n\nnmae = 'x'\n"), ("a.js", "")]);
    let error = Project::at(typo.path()).unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
    assert!(error.to_string().contains("nmae"), "{error}");
    let empty = folder(&[("README.md", "")]);
    let error = Project::at(empty.path()).unwrap().files().unwrap_err();
    assert!(error.hint().unwrap().contains("cloudserve init"), "{error}");
    let error = Project::at(&empty.path().join("README.md")).unwrap_err();
    assert!(error.hint().unwrap().contains(".ts"), "{error}");
    let named = folder(&[(FILE, "[function]\nname = 'a b'\n"), ("a.js", "")]);
    let error = Project::at(named.path()).unwrap().name(None).unwrap_err();
    assert!(error.to_string().contains("\"a b\""), "{error}");
    assert!(error.hint().unwrap().contains(FILE), "{error}");
    let file = folder(&[("a b.js", "")]);
    let error = Project::at(&file.path().join("a b.js")).unwrap().name(None).unwrap_err();
    assert!(error.hint().unwrap().contains("the file"), "{error}");
}
