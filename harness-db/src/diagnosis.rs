//! Why a server cannot be used, told apart by cause, each with its remedy.

use std::fmt::{self, Debug};

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use tokio::net::TcpStream;

/// Bytes of an answer that are read before it counts as a line.
const LINE: usize = 4096;

/// What an attempt to use a server showed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis<C> {
    /// The cause; one of its values says that there is nothing wrong.
    pub cause: C,
    /// The service and where it should be: `Postgres at 127.0.0.1:5432`.
    pub place: String,
    /// What was seen, in the server's words where it had some. Never a password.
    pub found: String,
    /// What to do; empty when there is nothing wrong.
    pub remedy: String,
}

impl<C: PartialEq + Debug> Diagnosis<C> {
    /// As a probe: a pass when nothing is wrong.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.remedy.is_empty() {
            true => Outcome::pass(self.to_string()),
            false => Outcome::fail(self.to_string()),
        }
    }

    /// Holds when nothing is wrong.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] with what was found and the remedy.
    pub fn check(&self) -> CoreResult {
        if self.remedy.is_empty() {
            return Ok(());
        }
        let what = format!("{} cannot be used ({:?}): {}", self.place, self.cause, self.found);
        Err(Error::new(ErrorKind::Connect, what).remedy(self.remedy.clone()))
    }
}

impl<C: Debug> fmt::Display for Diagnosis<C> {
    /// `Postgres at 127.0.0.1:5432: Refused: nobody listens there; remedy: start the server, or correct the URL`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.place, self.cause, self.found)?;
        match self.remedy.is_empty() {
            true => Ok(()),
            false => write!(f, "; remedy: {}", self.remedy),
        }
    }
}

/// Sends these bytes and reads the first line that comes back, without its end.
///
/// A server that turns clients away speaks first and hangs up: what it said is there even when it does not listen.
pub(crate) async fn exchange(stream: &TcpStream, bytes: &[u8]) -> std::io::Result<String> {
    let sent = send(stream, bytes).await;
    match (sent, line(stream).await) {
        (_, Ok(answer)) => Ok(answer),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

async fn send(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn line(stream: &TcpStream) -> std::io::Result<String> {
    let (mut all, mut some) = (Vec::new(), [0_u8; 512]);
    loop {
        stream.readable().await?;
        match stream.try_read(&mut some) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => all.extend_from_slice(&some[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let end = all.iter().position(|&byte| byte == b'\n');
        if end.is_some() || all.len() > LINE {
            return Ok(String::from_utf8_lossy(&all[..end.unwrap_or(LINE)]).trim_end().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Diagnosis;

    #[test]
    fn diagnosis_says_place_cause_finding_and_remedy() {
        let wrong = Diagnosis {
            cause: "Refused",
            place: "Postgres at h:1".into(),
            found: "nobody listens there".into(),
            remedy: "start it".into(),
        };
        assert_eq!(wrong.to_string(), "Postgres at h:1: \"Refused\": nobody listens there; remedy: start it");
        assert!(wrong.outcome().is_fail() && wrong.check().is_err());
        let well = Diagnosis { remedy: String::new(), ..wrong };
        assert!(well.outcome().is_pass() && well.check().is_ok());
    }
}
