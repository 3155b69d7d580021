//! Parts this binary plays when it is started by its own tests: before `main`, by the variable `HARNESS_ACT`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use harness_core::keeper::{
    Attached, CORE_HOOK, Custodian, KeptThing, Launch, LeaseId, Left, Main, ServerState, Slot, StartGuard,
    SweepOptions, census, end_slot, run_if_asked, sweep,
};
use harness_core::scope::{Census, TestScope};
use harness_core::service::{Backend, ContainerSpec, Exec, Port, ServiceSpec};
use harness_core::wait::{Progress, wait_for, wait_for_blocking};
use harness_core::{CoreResult, Error, ErrorKind};

const LIMIT: Duration = Duration::from_secs(60);

mod before_main {
    #[ctor::ctor(unsafe)]
    fn hook() {
        super::run_if_asked("notes", &[&super::Notes]);
        // Acts play before `main`, perhaps before the hook of the crate itself.
        super::run_if_asked(super::CORE_HOOK, &[]);
        // A keeper inherits our variables, and must not play our part.
        if let (Ok(act), Err(_)) = (std::env::var("HARNESS_ACT"), std::env::var("HARNESS_KEEPER")) {
            let code = match super::play(&act) {
                Ok(()) => 0,
                Err(error) => {
                    super::tell("error", &format!("{:?} {error:?}", error.kind()));
                    1
                }
            };
            std::process::exit(code);
        }
    }
}

fn play(act: &str) -> CoreResult {
    match act {
        "serve" => serve(),
        "use" => use_slot()?,
        "port" => {
            let ports = (0..20).map(|_| Port::reserve()).collect::<CoreResult<Vec<_>>>()?;
            let numbers: Vec<_> = ports.iter().map(Port::number).collect();
            tell("ports", &serde_json::to_string(&numbers).unwrap_or_default());
            wait_for_the_end();
        }
        "census" => tell("census", &serde_json::to_string(&census()?).unwrap_or_default()),
        "end" => {
            let slot = census()?.slots.into_iter().find(|slot| Some(&slot.name) == variable("HARNESS_SLOT").as_ref());
            end_slot(&slot.ok_or_else(|| Error::new(ErrorKind::NoEvidence, "there is no such slot"))?)?;
            tell("ended", "");
        }
        "sweep" => {
            let options = SweepOptions::default().kept(variable("HARNESS_SWEEP_KEPT").is_some());
            tell("sweep", &serde_json::to_string(&sweep(options)?).unwrap_or_default());
        }
        "runner" => {
            // Our own name is `cargo` here; the child takes us for its runner.
            let exe = std::env::current_exe()?;
            let child = Command::new(exe).env("HARNESS_ACT", "use").spawn()?.wait()?;
            tell("child ended", &child.to_string());
            wait_for_the_end();
        }
        "scope" => scope()?,
        "hang in scope" => hang_in_scope(),
        "leak in scope" => leak_in_scope()?,
        "serve in scope" => serve_in_scope()?,
        "contain in scope" => contain_in_scope()?,
        other => return Err(Error::new(ErrorKind::Config, format!("no such act: {other}"))),
    }
    Ok(())
}

/// A server: answers `hello` on its port; the argument `deaf` makes it start and end at once.
fn serve() {
    let arguments: Vec<_> = std::env::args().collect();
    println!("serving with {arguments:?}");
    if arguments.iter().any(|argument| argument == "deaf") {
        println!("cannot hear anything");
        std::process::exit(7);
    }
    let address = ("127.0.0.1", arguments[1].parse().unwrap_or(0));
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("bind {address:?}: {error}"));
    // A grandchild that outlives a careless end.
    let _child = Command::new("sleep").arg("600").spawn();
    for mut stream in listener.incoming().flatten() {
        let _ = stream.write_all(b"hello\n");
    }
}

/// One round trip with the server.
pub(crate) fn greeted(address: std::net::SocketAddr) -> Progress<()> {
    let mut text = String::new();
    let asked = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))
        .and_then(|mut stream| stream.read_to_string(&mut text));
    match asked {
        Ok(_) if text == "hello\n" => Progress::Ready(()),
        Ok(_) => Progress::NotYet(format!("answered {text:?}")),
        Err(error) => Progress::NotYet(error.to_string()),
    }
}

/// A Redis that anybody may ask: the command of its container.
pub(crate) const REDIS: &str = "exec redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save ''";

/// One round trip with whatever server this world uses.
fn answers(address: std::net::SocketAddr) -> Progress<()> {
    if variable("HARNESS_CONTAINER").is_none() {
        return greeted(address);
    }
    let mut answer = [0; 5];
    let asked = std::net::TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        stream.read_exact(&mut answer)
    });
    asked.map(|()| assert_eq!(&answer, b"+PONG")).into()
}

/// A test process: attaches to the slot or starts its server, tells each stage, and waits for its end.
fn use_slot() -> CoreResult {
    let kind = variable("HARNESS_SLOT").unwrap_or_else(|| "dummy".to_owned());
    let slot = Slot::open(&kind, "1")?;
    let attached = match slot.attach_blocking()? {
        Some(attached) => attached,
        None => start(&slot)?,
    };
    if variable("HARNESS_FALLBACK").is_none() {
        wait_for_blocking("the shared server", LIMIT, || answers(attached.address))?;
    }
    // One process has one lease on a slot, however often it attaches.
    let twice = slot.attach_blocking()?.map(|attached| attached.lease);
    assert_eq!(twice.as_ref(), Some(&attached.lease));
    let note = attached.slot.join("notes").join(format!("note-{}", attached.lease));
    std::fs::create_dir_all(attached.slot.join("notes"))?;
    std::fs::write(&note, "mine")?;
    if variable("HARNESS_TEST_FAILS").is_some() {
        attached.keep(&KeptThing::new("note", note.display().to_string(), "cat it"))?;
    }
    tell("attached", &format!("{} {} {}", attached.address, attached.keeper.pid, note.display()));
    wait_for_the_end();
    Ok(())
}

fn start(slot: &Slot) -> CoreResult<Attached> {
    let start = slot.lock_blocking(LIMIT)?;
    if let Some(attached) = slot.attach_blocking()? {
        return Ok(attached);
    }
    stage("locked");
    let mut server = Exec::new(std::env::current_exe()?).arg("{port}").env("HARNESS_ACT", "serve");
    if variable("HARNESS_SERVER").as_deref() == Some("deaf") {
        server = server.arg("deaf");
    }
    let main = match variable("HARNESS_CONTAINER") {
        Some(image) => Main::Container(ContainerSpec::new(image, 6379).cmd(["sh", "-c", REDIS])),
        None => Main::Process(server.clone()),
    };
    if variable("HARNESS_FALLBACK").is_some() {
        return fall_back(start, main, server);
    }
    let mut launch = Launch::new("notes", main);
    if let Some(code) = variable("HARNESS_PREPARE") {
        launch = launch.prepare(Exec::new("sh").args(["-c".to_owned(), code]));
    }
    let launched = start.launch_blocking(&launch)?;
    stage("launched");
    wait_for_blocking("the server to answer", LIMIT, || match start.check_alive() {
        Ok(()) => answers(launched.address),
        Err(error) => Progress::Failed(error),
    })?;
    let attached = start.publish(BTreeMap::from([("greeting".to_owned(), "hello".to_owned())]))?;
    stage("published");
    Ok(attached)
}

/// What a chain of providers does: the first attempt fails, the next one takes its place.
fn fall_back(start: StartGuard, first: Main, second: Exec) -> CoreResult<Attached> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let error = match start.launch(&Launch::new("notes", first)).await {
            Ok(_) => Error::new(ErrorKind::NoEvidence, "the first attempt did not fail"),
            Err(error) => error,
        };
        tell("refused", &format!("{:?} {error:?}", error.kind()));
        start.abandon().await?;
        let launched = start.launch(&Launch::new("notes", Main::Process(second))).await?;
        wait_for("the second server", LIMIT, async || greeted(launched.address)).await?;
        start.publish(BTreeMap::from([("greeting".to_owned(), "hello".to_owned())]))
    })
}

/// A test with a scope: makes a directory, tells it, and ends as told.
fn scope() -> CoreResult {
    let scope = TestScope::new("acted");
    let dir = scope.temp_dir()?;
    std::fs::write(dir.join("file"), "x")?;
    let evidence = scope.evidence("note.txt", b"seen")?;
    if variable("HARNESS_TEST_FAILS").is_some() {
        scope.fail("as told");
    }
    tell("scope", &format!("{} {}", dir.display(), evidence.display()));
    wait_for_the_end();
    Ok(())
}

/// A test with a census that leaves what it is told to leave; tells what the census says.
fn leak_in_scope() -> CoreResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let said = runtime.block_on(async {
        let scope = TestScope::new("leaks");
        scope.census(Census::new().alone()).await?;
        let elsewhere = TestScope::new("elsewhere");
        let null = std::process::Stdio::null;
        let sleeper = || Command::new("sleep").arg("60").stdin(null()).stdout(null()).stderr(null()).spawn();
        let mut left: Vec<Box<dyn std::any::Any>> = Vec::new();
        match variable("HARNESS_LEAK").unwrap_or_default().as_str() {
            "file" => left.push(Box::new(std::fs::File::open("/etc/passwd")?)),
            "socket" => left.push(Box::new(TcpListener::bind("127.0.0.1:0")?)),
            "task" => drop(tokio::spawn(std::future::pending::<()>())),
            "short task" => drop(tokio::spawn(harness_core::wait::pause(Duration::from_millis(50)))),
            "child" => left.push(Box::new(sleeper()?)),
            "dead child" => {
                let mut child = sleeper()?;
                child.kill()?;
                left.push(Box::new(child));
            }
            "grandchild" => {
                let orphan = ["-c", "setsid sleep 60 < /dev/null > /dev/null 2>&1 &"];
                let spec = ServiceSpec::new("parent", Backend::Process(Exec::new("sh").args(orphan)));
                // It ends at once, and leaves its child to nobody.
                let _ = spec
                    .limit(Duration::from_secs(5))
                    .ready(async |_| Progress::NotYet(String::new()))
                    .start(&elsewhere)
                    .await;
            }
            "container" => drop(contained(&elsewhere).await?),
            "everything, and ends it" => {
                drop(std::fs::File::open("/etc/passwd")?);
                let mut child = sleeper()?;
                child.kill()?;
                child.wait()?;
                tokio::spawn(async {}).await.map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
                if variable("HARNESS_CONTAINER").is_some() {
                    let service = contained(&scope).await?;
                    drop(TcpListener::bind("127.0.0.1:0")?);
                    service.pause().await?;
                }
            }
            other => return Err(Error::new(ErrorKind::Config, format!("no such leak: {other}"))),
        }
        let said = scope.shutdown().await.map_or_else(|error| format!("{error:?}"), |()| "nothing".to_owned());
        drop(left);
        elsewhere.shutdown().await?;
        CoreResult::Ok(said)
    })?;
    tell("leaks", &said);
    Ok(())
}

async fn contained(scope: &TestScope) -> CoreResult<harness_core::service::Service> {
    let spec = ContainerSpec::new(variable("HARNESS_CONTAINER").unwrap_or_default(), 6379).cmd(["sh", "-c", REDIS]);
    ServiceSpec::new("contained", Backend::Container(spec)).ready(async |at| answers(at.address)).start(scope).await
}

/// A test that blocks its thread for ever, with a limit.
fn hang_in_scope() {
    let scope = TestScope::new("hangs");
    if variable("HARNESS_TEST_LIMIT").is_none() {
        scope.limit(Duration::from_millis(500));
    }
    let mut importer = scope.parties().join("importer");
    importer.at("reading from a terminal");
    if variable("HARNESS_TEST_FAILS").is_none() {
        return drop((importer, scope)); // ends in time
    }
    loop {
        std::thread::park();
    }
}

/// A test with a service: tells its process and its grandchild.
fn serve_in_scope() -> CoreResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scope = TestScope::new("serves");
    let server = Exec::new(std::env::current_exe()?).arg("{port}").env("HARNESS_ACT", "serve");
    let spec = ServiceSpec::new("served", Backend::Process(server));
    let service = runtime.block_on(spec.ready(async |at| greeted(at.address)).start(&scope))?;
    let pid = service.pid().unwrap_or_default();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    tell("pids", &format!("[{pid},{}]", children.trim().replace(' ', ",")));
    wait_for_the_end();
    Ok(())
}

/// A test with a container.
fn contain_in_scope() -> CoreResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scope = TestScope::new("contains");
    let service = runtime.block_on(contained(&scope))?;
    tell("contained", &service.address().to_string());
    wait_for_the_end();
    Ok(())
}

/// Ends the `notes/note-<lease>` files of dead leases: what databases are to a real custodian.
struct Notes;

impl Custodian for Notes {
    fn hook(&self) -> &'static str {
        "notes"
    }

    fn list(&self, server: &ServerState) -> CoreResult<Vec<Left>> {
        let Ok(entries) = std::fs::read_dir(server.slot.join("notes")) else { return Ok(Vec::new()) };
        let named = entries.flatten().map(|entry| entry.path().display().to_string());
        Ok(named
            .map(|name| Left::new("note", &*name, name.rsplit_once("note-").and_then(|(_, l)| LeaseId::parse(l))))
            .collect())
    }

    fn end(&self, server: &ServerState, lease: &LeaseId) -> CoreResult<Vec<Left>> {
        assert_eq!(server.facts["greeting"], "hello");
        let mine = self.list(server)?.into_iter().filter(|left| left.lease.as_ref() == Some(lease));
        let free: Vec<_> = mine.filter(|left| !server.keeps(&left.kind, &left.name)).collect();
        free.iter().try_for_each(|left| std::fs::remove_file(&left.name))?;
        Ok(free)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Tells a stage; stays there for ever when told to.
fn stage(name: &str) {
    tell("stage", name);
    if variable("HARNESS_STAY_AT").as_deref() == Some(name) {
        wait_for_the_end();
    }
}

fn tell(what: &str, text: &str) {
    println!("@{what} {}", text.replace('\n', " | "));
    let _ = std::io::stdout().flush();
}

/// Returns when the test closes our input, which it also does by dying.
fn wait_for_the_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
