//! A container engine, asked over its socket with the few questions that decide where servers come from.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::CommandLine;

/// Where an engine listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";

/// Why there is no engine to talk to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Nothing listens at any of the usual places.
    #[error("no container engine: none of {tried} exists; start Docker or Podman, or set DOCKER_HOST")]
    NoSocket {
        /// The sockets looked for.
        tried: String,
    },
    /// An address that this client cannot use.
    #[error("DOCKER_HOST={address} is not understood: use unix:///path or tcp://host:port without TLS")]
    Address {
        /// The address as given.
        address: String,
    },
    /// The engine did not answer, or not in time.
    #[error("container engine at {address} does not answer {path}: {source}; is it running, and may this user use it?")]
    NoAnswer {
        /// Where it was expected.
        address: String,
        /// The question.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The engine answered, but not what was asked for.
    #[error("container engine at {address} answers {path} with status {status}: {body}")]
    Refused {
        /// Where it listens.
        address: String,
        /// The question.
        path: String,
        /// HTTP status.
        status: u16,
        /// Its words, shortened.
        body: String,
    },
}

/// What an engine knows about an image it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Content id.
    pub id: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

/// The address of a container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    address: String,
}

impl Engine {
    /// The engine at `unix:///path` or `tcp://host:port`; asks nothing yet.
    ///
    /// # Errors
    /// [`EngineError::Address`] for any other kind of address.
    pub fn at(address: impl Into<String>) -> Result<Self, EngineError> {
        let address = address.into();
        if address.starts_with("unix:///") || address.starts_with("tcp://") {
            Ok(Self { address })
        } else {
            Err(EngineError::Address { address })
        }
    }

    /// The engine that this environment points to, once it has answered a ping within 2 s: `DOCKER_HOST`, else the
    /// first socket that exists of the usual ones (system, rootless, desktop, Podman).
    ///
    /// # Errors
    /// [`EngineError`]: no socket, an address of another kind, or no answer.
    pub fn find(vars: &BTreeMap<String, String>) -> Result<Self, EngineError> {
        let engine = match vars.get("DOCKER_HOST").filter(|host| !host.is_empty()) {
            Some(host) => Self::at(host)?,
            None => Self::first_socket(vars)?,
        };
        engine.ask("/_ping", Duration::from_secs(2))?;
        Ok(engine)
    }

    fn first_socket(vars: &BTreeMap<String, String>) -> Result<Self, EngineError> {
        let below = |var: &str, rest: &str| vars.get(var).map(|dir| format!("unix://{dir}/{rest}"));
        let sockets = [
            Some(DEFAULT_SOCKET.to_owned()),
            below("XDG_RUNTIME_DIR", "docker.sock"),
            below("HOME", ".docker/run/docker.sock"),
            below("XDG_RUNTIME_DIR", "podman/podman.sock"),
        ];
        let sockets: Vec<String> = sockets.into_iter().flatten().collect();
        match sockets.iter().find(|socket| Path::new(socket.trim_start_matches("unix://")).exists()) {
            Some(address) => Self::at(address),
            None => Err(EngineError::NoSocket { tried: sockets.join(", ") }),
        }
    }

    /// Where it listens, in the form of `DOCKER_HOST`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Product version of the engine, such as `20.10.24`.
    ///
    /// # Errors
    /// No answer, or one that is not understood.
    pub fn version(&self) -> Result<String, EngineError> {
        let answer = self.ask("/version", Duration::from_secs(5))?;
        let json: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        match json["Version"].as_str() {
            Some(version) => Ok(version.to_owned()),
            None => Err(self.refused("/version", 200, &answer)),
        }
    }

    /// The image of this name if the engine holds it; no registry is asked.
    ///
    /// # Errors
    /// No answer, or one that is not understood.
    pub fn image(&self, name: &str) -> Result<Option<Image>, EngineError> {
        let path = format!("/images/{name}/json");
        let answer = match self.ask(&path, Duration::from_secs(10)) {
            Ok(answer) => answer,
            Err(EngineError::Refused { status: 404, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let json: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        let Some(id) = json["Id"].as_str() else { return Err(self.refused(&path, 200, &answer)) };
        let labels = json["Config"]["Labels"].as_object().cloned().unwrap_or_default();
        let labels = labels.into_iter().map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()));
        Ok(Some(Image { id: id.to_owned(), labels: labels.collect() }))
    }

    /// Asks the engine to look the image up in its registry, once.
    ///
    /// # Errors
    /// The registry cannot be reached within `limit`, or does not have it.
    pub fn look_up(&self, name: &str, limit: Duration) -> Result<(), EngineError> {
        self.ask(&format!("/distribution/{name}/json"), limit).map(drop)
    }

    /// A call of the `docker` program against this engine.
    pub fn docker<W: Into<String>>(&self, words: impl IntoIterator<Item = W>, limit: Duration) -> CommandLine {
        let mut argv = vec!["docker".to_owned()];
        if self.address != DEFAULT_SOCKET {
            argv.extend(["--host".to_owned(), self.address.clone()]);
        }
        argv.extend(words.into_iter().map(Into::into));
        CommandLine { argv, limit }
    }

    /// GET of a path: the body of a 2xx answer.
    fn ask(&self, path: &str, limit: Duration) -> Result<String, EngineError> {
        let no_answer = |source| EngineError::NoAnswer { address: self.address.clone(), path: path.to_owned(), source };
        let (sender, answers) = mpsc::channel();
        let (address, question) = (self.address.clone(), path.to_owned());
        // Connecting to a local socket cannot be given a limit, so a thread does it; its reads end by themselves.
        thread::spawn(move || sender.send(exchange(&address, &question, limit)));
        let answer = answers.recv_timeout(limit).map_err(|_| no_answer(io::ErrorKind::TimedOut.into()))?;
        let (status, body) = answer.map_err(no_answer)?;
        if (200..300).contains(&status) { Ok(body) } else { Err(self.refused(path, status, &body)) }
    }

    fn refused(&self, path: &str, status: u16, body: &str) -> EngineError {
        let body = body.trim().chars().take(300).collect();
        EngineError::Refused { address: self.address.clone(), path: path.to_owned(), status, body }
    }
}

/// One HTTP/1.0 exchange: the older version, so that the answer is not chunked and ends with the connection.
fn exchange(address: &str, path: &str, limit: Duration) -> io::Result<(u16, String)> {
    if let Some(socket) = address.strip_prefix("unix://") {
        let stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        talk(stream, path)
    } else {
        let host = address.trim_start_matches("tcp://");
        let target = host.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let stream = TcpStream::connect_timeout(&target, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        talk(stream, path)
    }
}

fn talk(mut stream: impl Read + Write, path: &str) -> io::Result<(u16, String)> {
    // In one piece: an engine that answers early must not leave the rest unread, which resets the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4 << 20).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(not_http)?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).ok_or_else(not_http)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers every connection with `answer`, or with nothing at all.
    fn engine_that_says(answer: Option<&'static str>) -> Engine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let mut silent = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let mut question = [0; 1024];
                let _ = stream.read(&mut question);
                match answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => silent.push(stream),
                }
            }
        });
        Engine::at(address).unwrap()
    }

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn finds_the_engine_that_answers() {
        let engine = engine_that_says(Some("HTTP/1.0 200 OK\r\n\r\nOK"));
        let found = Engine::find(&vars(&[("DOCKER_HOST", engine.address())])).unwrap();
        assert_eq!(found, engine);
    }

    #[test]
    fn does_not_take_a_silent_or_a_refusing_listener_for_an_engine() {
        let refusing = engine_that_says(Some("HTTP/1.0 403 Forbidden\r\n\r\nno"));
        let error = Engine::find(&vars(&[("DOCKER_HOST", refusing.address())])).unwrap_err();
        assert!(matches!(error, EngineError::Refused { status: 403, .. }), "{error}");
        let error = engine_that_says(None).ask("/_ping", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, EngineError::NoAnswer { .. }), "{error}");
        let error = Engine::find(&vars(&[("DOCKER_HOST", "ssh://somewhere")])).unwrap_err();
        assert!(error.to_string().contains("ssh://somewhere"), "{error}");
    }

    #[test]
    fn reads_labels_of_a_present_image_and_none_of_an_absent_one() {
        let present = engine_that_says(Some(
            "HTTP/1.0 200 OK\r\n\r\n{\"Id\":\"sha256:1\",\"Config\":{\"Labels\":{\"harness.image\":\"1\"}}}",
        ));
        let image = present.image("a:1").unwrap().unwrap();
        assert_eq!(image.labels.get("harness.image").map(String::as_str), Some("1"));
        let absent = engine_that_says(Some("HTTP/1.0 404 Not Found\r\n\r\n{}"));
        assert_eq!(absent.image("a:1").unwrap(), None);
        let broken = engine_that_says(Some("HTTP/1.0 200 OK\r\n\r\nnonsense"));
        assert!(broken.image("a:1").is_err());
    }
}
