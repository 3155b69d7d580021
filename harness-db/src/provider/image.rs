//! Container images of the servers: which ones will do, and how to make them from distribution packages where no
//! registry can be reached.
//!
//! A [`Recipe`] is data: it says which commands build an image, and runs none of them. Only `harness provision` does,
//! after printing them; a test process never builds, never pulls.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness_core::ErrorKind;
use harness_core::service::{Exec, Finished, run_to_end};

mod engine;
mod mirror;

pub use engine::{DEFAULT_SOCKET, Engine, EngineError, Image};
pub use mirror::debian_mirror;

/// Images that serve as Postgres with pgvector, best first.
pub const POSTGRES_IMAGES: [&str; 2] = ["pgvector/pgvector:pg17", "harness/postgres:17"];

/// Images that serve as Redis 7, best first.
pub const REDIS_IMAGES: [&str; 2] = ["redis:7", "harness/redis:7"];

/// Label of every image made by a [`Recipe`]; its value is `1`.
pub const LABEL_OWN: &str = "harness.image";

/// Label that holds the [`Recipe::fingerprint`] an image was made by, so that an outdated one is seen.
pub const LABEL_RECIPE: &str = "harness.recipe";

/// One program with its arguments, and how long it may take. `Display` is the line to type into a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// After this long the caller ends the program.
    pub limit: Duration,
}

impl CommandLine {
    /// A command of these words.
    pub fn new<W: Into<String>>(argv: impl IntoIterator<Item = W>, limit: Duration) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), limit }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.argv.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
            let gap = if at == 0 { "" } else { " " };
            if !word.is_empty() && word.chars().all(plain) {
                write!(f, "{gap}{word}")?;
            } else {
                write!(f, "{gap}'{}'", word.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

/// What a program that ran to its end left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, lossy UTF-8.
    pub stdout: String,
    /// Standard error, lossy UTF-8.
    pub stderr: String,
}

impl Ran {
    /// Whether the program said it succeeded.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// The last lines it wrote on either stream, for an error message.
    pub fn last_words(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

/// Runs a command to its end. Programs start in one place of the house only, so it is handed in.
pub type Run<'a> = &'a dyn Fn(&CommandLine) -> io::Result<Ran>;

/// The everyday [`Run`]: a child of this process, ended with its whole group after the limit.
///
/// # Errors
/// The program cannot be started, or did not end in time ([`io::ErrorKind::TimedOut`]).
pub fn run(command: &CommandLine) -> io::Result<Ran> {
    let [program, args @ ..] = command.argv.as_slice() else { return Err(io::ErrorKind::InvalidInput.into()) };
    match run_to_end(&Exec::new(program).args(args), command.limit) {
        Ok(Finished { code, stdout, stderr }) => Ok(Ran { code, stdout, stderr }),
        Err(error) if error.kind() == ErrorKind::Timeout => {
            Err(io::Error::new(io::ErrorKind::TimedOut, error.to_string()))
        }
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

/// How one image is made: packages of a distribution, a few files and settings.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Name and tag of the image.
    pub name: &'static str,
    /// Release of the distribution that the packages come from.
    pub suite: &'static str,
    /// Packages to install.
    pub packages: &'static [&'static str],
    /// Text of `/usr/local/bin/docker-entrypoint.sh`.
    pub entrypoint: &'static str,
    /// Shell lines run before the packages are configured; `$1` is the root of the image.
    pub before: &'static [&'static str],
    /// Shell lines run at the end; `$1` is the root of the image.
    pub after: &'static [&'static str],
    /// Settings of the image, as `docker import --change` takes them.
    pub settings: &'static [&'static str],
    /// Signal that asks the server to stop now, where `SIGTERM` does not.
    pub stop_signal: Option<&'static str>,
}

/// Postgres 17 with pgvector (and `pg_stat_statements` to preload). The cluster is initialised at build time, so that
/// a container's first start takes no `initdb`.
pub const POSTGRES: Recipe = Recipe {
    name: POSTGRES_IMAGES[1],
    suite: "trixie",
    packages: &["postgresql-17", "postgresql-17-pgvector"],
    entrypoint: include_str!("image/postgres-entrypoint.sh"),
    before: &[
        // The package would make a cluster of its own in another place.
        r#"mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf""#,
    ],
    after: &[
        r#"chroot "$1" install -d /docker-entrypoint-initdb.d"#,
        r#"chroot "$1" install -d -o postgres -g postgres -m 2777 /run/postgresql"#,
        r#"chroot "$1" install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data"#,
        r#"chroot "$1" setpriv --reuid=postgres --regid=postgres --init-groups /usr/lib/postgresql/17/bin/initdb --pgdata=/var/lib/postgresql/data --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-instructions --no-sync >/dev/null"#,
        r#"echo "listen_addresses = '*'" >>"$1/var/lib/postgresql/data/postgresql.conf""#,
        r#"chroot "$1" install -o postgres -g postgres -m 0600 /dev/null /var/lib/postgresql/data/harness.untouched"#,
    ],
    settings: &[
        "ENV LANG=C.UTF-8",
        "ENV PG_MAJOR=17",
        "ENV PGDATA=/var/lib/postgresql/data",
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin",
        "VOLUME /var/lib/postgresql/data",
        "EXPOSE 5432",
        r#"ENTRYPOINT ["docker-entrypoint.sh"]"#,
        r#"CMD ["postgres"]"#,
    ],
    stop_signal: Some("SIGINT"), // SIGTERM waits until every client has left
};

/// Redis 7 with Sentinel.
pub const REDIS: Recipe = Recipe {
    name: REDIS_IMAGES[1],
    suite: "bookworm",
    packages: &["redis-server", "redis-sentinel"],
    entrypoint: include_str!("image/redis-entrypoint.sh"),
    before: &[],
    after: &[r#"chroot "$1" install -d -o redis -g redis /data"#],
    settings: &[
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "WORKDIR /data",
        "VOLUME /data",
        "EXPOSE 6379",
        r#"ENTRYPOINT ["docker-entrypoint.sh"]"#,
        r#"CMD ["redis-server"]"#,
    ],
    stop_signal: None,
};

/// Where an image is built, and with what.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// Empty directory that takes the files and, for a while, the image's content (up to 500 MB).
    pub dir: PathBuf,
    /// Mirror of the distribution, see [`debian_mirror`]; `None` leaves the choice to `mmdebstrap`.
    pub mirror: Option<String>,
    /// The engine that takes the image.
    pub engine: Engine,
}

const UNPACK_LIMIT: Duration = Duration::from_secs(900);
const IMPORT_LIMIT: Duration = Duration::from_secs(300);

impl Recipe {
    /// Sum over everything that decides what the image is, 16 hexadecimal digits (FNV-1a: no secret is kept by it).
    pub fn fingerprint(&self) -> String {
        let unpack = self.unpack(Path::new("."), None).argv;
        let single = [self.name, self.entrypoint, self.stop_signal.unwrap_or_default()];
        let parts = single.iter().chain(self.settings).copied().chain(unpack.iter().map(String::as_str));
        let bytes = parts.flat_map(|part| part.bytes().chain([0]));
        let sum = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        format!("{sum:016x}")
    }

    /// Writes the files that [`Recipe::commands`] refer to.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn write_files(&self, workshop: &Workshop) -> io::Result<()> {
        fs::create_dir_all(workshop.dir.join("config"))?;
        fs::write(workshop.dir.join("entrypoint.sh"), self.entrypoint)?;
        if let Some(signal) = self.stop_signal {
            let steps = format!("FROM {}\nSTOPSIGNAL {signal}\n{}\n", self.name, self.recipe_label());
            fs::write(workshop.dir.join("config/Dockerfile"), steps)?;
        }
        Ok(())
    }

    /// The commands that build the image, in order; each must succeed before the next.
    pub fn commands(&self, workshop: &Workshop) -> Vec<CommandLine> {
        let unpack = self.unpack(&workshop.dir, workshop.mirror.as_deref());
        let mut commands = vec![unpack, self.import(workshop)];
        if self.stop_signal.is_some() {
            // `docker import` cannot set a stop signal.
            let config = path_text(&workshop.dir.join("config"));
            let words = ["build", "--quiet", "--tag", self.name, &config];
            commands.push(workshop.engine.docker(words, IMPORT_LIMIT));
        }
        commands
    }

    /// Whether an image was made by exactly this recipe, and to the end.
    pub fn made(&self, image: &Image) -> bool {
        image.labels.get(LABEL_RECIPE) == Some(&self.fingerprint())
    }

    fn recipe_label(&self) -> String {
        format!("LABEL {LABEL_RECIPE}={}", self.fingerprint())
    }

    fn unpack(&self, dir: &Path, mirror: Option<&str>) -> CommandLine {
        let entrypoint = path_text(&dir.join("entrypoint.sh"));
        // Without the skip it empties /run, where servers keep their sockets.
        let fixed = ["mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/run"];
        let mut argv: Vec<String> = fixed.map(str::to_owned).to_vec();
        argv.push(format!("--include={}", self.packages.join(",")));
        argv.extend(["doc", "man", "locale"].map(|kind| format!("--dpkgopt=path-exclude=/usr/share/{kind}/*")));
        argv.extend(self.before.iter().map(|line| format!("--essential-hook={line}")));
        argv.push(format!("--customize-hook=upload '{entrypoint}' /usr/local/bin/docker-entrypoint.sh"));
        argv.push(r#"--customize-hook=chmod 0755 "$1/usr/local/bin/docker-entrypoint.sh""#.into());
        argv.extend(self.after.iter().map(|line| format!("--customize-hook={line}")));
        argv.extend([self.suite.into(), path_text(&dir.join("root.tar"))]);
        argv.extend(mirror.map(str::to_owned));
        CommandLine { argv, limit: UNPACK_LIMIT }
    }

    fn import(&self, workshop: &Workshop) -> CommandLine {
        // The label that says "complete" comes with the last step.
        let complete = self.stop_signal.is_none().then(|| self.recipe_label());
        let labels = [format!("LABEL {LABEL_OWN}=1")].into_iter().chain(complete);
        let settings = self.settings.iter().map(|setting| String::from(*setting)).chain(labels);
        let mut words = vec!["import".into()];
        words.extend(settings.flat_map(|setting| ["--change".into(), setting]));
        words.extend([path_text(&workshop.dir.join("root.tar")), self.name.into()]);
        workshop.engine.docker(words, IMPORT_LIMIT)
    }
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workshop() -> Workshop {
        let engine = Engine::at("unix:///var/run/docker.sock").unwrap();
        Workshop { dir: "/scratch".into(), mirror: Some("http://mirror.invalid/debian".into()), engine }
    }

    #[test]
    fn commands_build_an_image_from_packages_and_name_it() {
        let lines: Vec<String> = POSTGRES.commands(&workshop()).iter().map(CommandLine::to_string).collect();
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines[0].starts_with("mmdebstrap "), "{}", lines[0]);
        assert!(lines[0].contains("--include=postgresql-17,postgresql-17-pgvector"), "{}", lines[0]);
        assert!(lines[0].ends_with("trixie /scratch/root.tar http://mirror.invalid/debian"), "{}", lines[0]);
        assert!(lines[1].contains("'LABEL harness.image=1'"), "{}", lines[1]);
        assert!(lines[1].ends_with("/scratch/root.tar harness/postgres:17"), "{}", lines[1]);
        assert_eq!(lines[2], "docker build --quiet --tag harness/postgres:17 /scratch/config");
        assert_eq!(REDIS.commands(&workshop()).len(), 2);
    }

    #[test]
    fn only_the_last_step_marks_an_image_as_complete() {
        let marked = |recipe: &Recipe| recipe.commands(&workshop())[1].to_string().contains(LABEL_RECIPE);
        assert!(marked(&REDIS) && !marked(&POSTGRES));
        let scratch = tempfile::tempdir().unwrap();
        let workshop = Workshop { dir: scratch.path().into(), ..workshop() };
        POSTGRES.write_files(&workshop).unwrap();
        let steps = fs::read_to_string(scratch.path().join("config/Dockerfile")).unwrap();
        let label = format!("LABEL {LABEL_RECIPE}={}", POSTGRES.fingerprint());
        assert_eq!(steps.lines().collect::<Vec<_>>(), ["FROM harness/postgres:17", "STOPSIGNAL SIGINT", &label]);
        let image = |value: &str| Image { id: "1".into(), labels: [(LABEL_RECIPE.into(), value.into())].into() };
        assert!(POSTGRES.made(&image(&POSTGRES.fingerprint())));
        assert!(!POSTGRES.made(&image(&REDIS.fingerprint())) && !POSTGRES.made(&Image::default()));
    }

    #[test]
    fn names_the_engine_when_it_is_not_the_usual_one() {
        let workshop = Workshop { engine: Engine::at("unix:///run/user/7/docker.sock").unwrap(), ..workshop() };
        let import = &REDIS.commands(&workshop)[1];
        assert_eq!(import.argv[..3], ["docker", "--host", "unix:///run/user/7/docker.sock"]);
    }

    #[test]
    fn fingerprint_changes_with_any_part_of_a_recipe() {
        let changed = [
            Recipe { entrypoint: "other", ..POSTGRES },
            Recipe { suite: "sid", ..POSTGRES },
            Recipe { packages: &["postgresql-17"], ..POSTGRES },
            Recipe { settings: &[], ..POSTGRES },
            Recipe { stop_signal: None, ..POSTGRES },
        ];
        assert_eq!(POSTGRES.fingerprint(), POSTGRES.fingerprint());
        for recipe in changed {
            assert_ne!(recipe.fingerprint(), POSTGRES.fingerprint());
        }
    }

    #[test]
    fn a_printed_command_survives_the_shell() {
        let line = CommandLine::new(["a", "it's $1", "", "x=y"], UNPACK_LIMIT);
        assert_eq!(line.to_string(), r"a 'it'\''s $1' '' x=y");
    }

    #[test]
    fn last_words_prefer_the_error_stream() {
        let ran = Ran { code: Some(1), stdout: "out".into(), stderr: "1\n2\n3\n4\n5\n6\n".into() };
        assert_eq!(ran.last_words(), "2 | 3 | 4 | 5 | 6");
        assert_eq!(Ran { stdout: "out\n".into(), ..Ran::default() }.last_words(), "out");
    }
}
