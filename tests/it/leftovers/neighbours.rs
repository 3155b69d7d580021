//! Binaries that run side by side and start one after the other: whatever the others do, end or die of, nobody loses anything
//! while it lives.
//!
//! `HARNESS_BINARIES` sets how many (5 in the normal run), `HARNESS_APART` the milliseconds between two starts (400), and
//! `HARNESS_HOLDS` how long one lives at most, in milliseconds (4,000). Every fourth is killed half-way.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness_core::run::Run;
use harness_core::scope::TestScope;
use harness_core::wait::{Progress, pause, pause_blocking, wait_for_blocking};
use harness_core::{CoreResult, Error, ErrorKind};
use harness_db::sqlx;
use serde_json::json;

use super::traces::Seen;
use super::victim::{act, child, container};
use super::{LIMIT, gone, note, number, world};

/// Between two looks of a neighbour at what it has.
const LOOK: Duration = Duration::from_millis(200);

/// The body of a neighbour: takes things, looks at them for as long as told, and fails when one is gone. Anywhere else it does
/// nothing.
#[tokio::test]
async fn neighbour() -> harness_core::Result {
    let Some(dir) = std::env::var_os("HARNESS_NEIGHBOUR") else { return Ok(()) };
    let told = PathBuf::from(dir);
    let scope = TestScope::current();
    let file = scope.temp_dir()?.join("mine");
    std::fs::write(&file, "mine")?;
    let (database, keyspace) = (harness_db::postgres().await?, harness_db::redis().await?);
    sqlx::query("create table mine (id int)").execute(database.pool()).await?;
    sqlx::query("insert into mine values (7)").execute(database.pool()).await?;
    let mut redis = keyspace.connection().await?;
    let () = redis::cmd("SET").arg("mine").arg("7").query_async(&mut redis).await?;
    let (child, container) = (child(&scope).await?, container(&scope).await?);
    std::fs::write(told.with_extension("has"), file.display().to_string())?;
    let until = Instant::now() + Duration::from_millis(number("HARNESS_HOLD", 1_000));
    let mut looks = 0_u32;
    while Instant::now() < until {
        let lost = |what: &str, why: String| Error::new(ErrorKind::NoEvidence, format!("lost its {what}: {why}"));
        let rows: i64 = sqlx::query_scalar("select sum(id) from mine")
            .fetch_one(database.pool())
            .await
            .map_err(|error| lost("database", error.to_string()))?;
        let value: Option<String> = redis::cmd("GET")
            .arg("mine")
            .query_async(&mut redis)
            .await
            .map_err(|error| lost("keyspace", error.to_string()))?;
        let services = [Some(("child", &child)), container.as_ref().map(|service| ("container", service))];
        for (what, service) in services.into_iter().flatten() {
            if let Some(exit) = service.exit().await? {
                return Err(lost(what, exit.to_string()).into());
            }
        }
        if rows != 7 || value.as_deref() != Some("7") {
            return Err(lost("data", format!("{rows} and {value:?}")).into());
        }
        std::fs::read(&file).map_err(|error| lost("directory", error.to_string()))?;
        looks += 1;
        pause(LOOK).await;
    }
    std::fs::write(told.with_extension("looks"), looks.to_string())?;
    scope.shutdown().await?;
    Ok(())
}

struct Neighbour {
    number: u64,
    child: Child,
    told: PathBuf,
    kill_at: Option<Instant>,
    end: Option<bool>,
}

impl Neighbour {
    /// Starts a copy of this binary: what a run owns depends on the binary, too.
    fn start(number: u64, state: &Path, hold: Duration, is_killed: bool) -> CoreResult<Self> {
        let (own, copy) = (std::env::current_exe()?, state.join(format!("binary-{number}")));
        std::fs::hard_link(&own, &copy).or_else(|_| std::fs::copy(&own, &copy).map(drop))?;
        let told = state.join(format!("neighbour-{number}"));
        let mut command = act(&copy, "leftovers::neighbours::neighbour", state);
        command.env("HARNESS_NEIGHBOUR", &told).env("HARNESS_HOLD", hold.as_millis().to_string());
        let said = std::fs::File::create(told.with_extension("said"))?;
        let child = command.stderr(said).stdout(Stdio::null()).spawn()?;
        Ok(Self { number, child, told, kill_at: is_killed.then(|| Instant::now() + hold / 2), end: None })
    }

    fn file(&self, extension: &str) -> String {
        std::fs::read_to_string(self.told.with_extension(extension)).unwrap_or_default()
    }

    /// Kills it when its time has come and it has anything; notes how it ended.
    fn look(&mut self) {
        if self.end.is_some() {
            return;
        }
        if self.kill_at.is_some_and(|at| Instant::now() >= at) && !self.file("has").is_empty() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.end = Some(true);
        } else if let Ok(Some(status)) = self.child.try_wait() {
            self.end = Some(status.success());
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn neighbours_lose_nothing_while_they_live() -> harness_core::Result {
    let (binaries, apart) = (number("HARNESS_BINARIES", 5), Duration::from_millis(number("HARNESS_APART", 400)));
    let most = number("HARNESS_HOLDS", 4_000).max(1_000);
    let (state, mut draws) = (world(), Run::current().seed().stream("neighbours"));
    let mut all: Vec<Neighbour> = Vec::new();
    for n in 0..binaries {
        let hold = Duration::from_millis(most / 4 + draws.below(most * 3 / 4));
        all.push(Neighbour::start(n, state.path(), hold, n % 4 == 2)?);
        let until = Instant::now() + apart;
        while n + 1 < binaries && Instant::now() < until {
            all.iter_mut().for_each(Neighbour::look);
            pause_blocking(LOOK);
        }
    }
    let ended = wait_for_blocking("all neighbours to end", LIMIT + Duration::from_millis(most), || {
        all.iter_mut().for_each(Neighbour::look);
        match all.iter().filter(|neighbour| neighbour.end.is_none()).count() {
            0 => Progress::Ready(()),
            running => Progress::NotYet(format!("{running} run")),
        }
    });
    let hung = ended.err().map(|error| error.to_string());
    let reaped: Vec<String> = all
        .iter()
        .filter(|neighbour| neighbour.end == Some(false))
        .map(|neighbour| format!("{}: {}", neighbour.number, neighbour.file("said")))
        .collect();
    let looks: u64 = all.iter().filter_map(|neighbour| neighbour.file("looks").parse::<u64>().ok()).sum();
    let killed = all.iter().filter(|neighbour| neighbour.kill_at.is_some()).count();
    drop(all);
    let (left, _) = gone(state.path(), &Seen::default());
    note(&json!({
        "binaries": binaries, "apart_ms": apart.as_millis() as u64, "killed": killed, "looks": looks,
        "reaped": reaped.len(), "left": left.len(), "names": reaped, "hung": hung,
    }));
    super::traces::end(state.path(), &left);
    assert!(looks > 0, "nobody looked at anything");
    assert!(reaped.is_empty() && hung.is_none(), "{hung:?} {}", reaped.join("\n"));
    assert!(left.is_empty(), "{}", left.join(", "));
    Ok(())
}

#[test]
fn neighbour_whose_directory_is_taken_away_says_so() -> harness_core::Result {
    let state = world();
    let mut neighbour = Neighbour::start(0, state.path(), LIMIT, false)?;
    wait_for_blocking("the neighbour to have something", LIMIT, || match neighbour.file("has") {
        path if path.is_empty() => Progress::NotYet(neighbour.file("said")),
        path => std::fs::remove_file(path).into(),
    })?;
    wait_for_blocking("the neighbour to notice", LIMIT, || {
        neighbour.look();
        match neighbour.end {
            Some(ended) => Progress::Ready(ended),
            None => Progress::NotYet("it runs".to_owned()),
        }
    })?;
    assert_eq!(neighbour.end, Some(false));
    assert!(neighbour.file("said").contains("lost its directory"), "{}", neighbour.file("said"));
    drop(neighbour);
    let (left, _) = gone(state.path(), &Seen::default());
    assert!(left.is_empty(), "{}", left.join(", "));
    Ok(())
}
