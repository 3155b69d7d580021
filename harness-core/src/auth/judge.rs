//! The attacks against a service: positive control first, then every token, and a trap for whoever fetches keys.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harness_props::Outcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::attack::{Attack, Valid};
use super::claims::TokenRequest;
use crate::error::{CoreResult, Error, ErrorKind};

/// A port that counts who comes: a service that fetches keys from an address in a token shows itself here.
#[must_use = "the trap is closed when it is dropped"]
#[derive(Debug)]
pub struct Trap {
    url: String,
    visits: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Trap {
    /// Opens the trap on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn open() -> CoreResult<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/keys.json", listener.local_addr()?);
        let visits = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&visits);
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut head = [0; 1024];
                let _ = socket.read(&mut head).await;
                let _ = socket
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\n{\"keys\":[]}")
                    .await;
            }
        });
        Ok(Self { url, visits, task })
    }

    /// Its address, for [`super::attacks`].
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who came so far.
    #[must_use]
    pub fn visits(&self) -> u64 {
        self.visits.load(Ordering::SeqCst)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came of the attacks on a service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a report says nothing until it is looked at"]
pub struct AttackReport {
    /// Attacks that were refused as they should be.
    pub refused: usize,
    /// Attacks that were not: name and what came.
    pub passed: Vec<(String, u16)>,
    /// Good tokens that were refused: name and status.
    pub rejected: Vec<(&'static str, u16)>,
    /// Who came into the trap.
    pub fetches: u64,
}

impl AttackReport {
    /// Pass when every attack was refused with its status, every good token accepted, and nobody fetched a key.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.refused == 0 {
            return Outcome::no_evidence("no attack was refused: is there any check at all?");
        }
        match (self.passed.first(), self.rejected.first(), self.fetches) {
            (Some((name, status)), ..) => {
                Outcome::fail(format!("{} attacks pass; {name}: status {status}", self.passed.len()))
            }
            (_, Some((name, status)), _) => {
                Outcome::fail(format!("{} good tokens are refused; {name}: status {status}", self.rejected.len()))
            }
            (.., 1..) => Outcome::fail(format!("{} keys were fetched from an address in a token", self.fetches)),
            _ => Outcome::pass(format!("{} attacks refused, no good token rejected", self.refused)),
        }
    }
}

/// Sends every token; `send` shows a request to the service and gives the status.
///
/// ```no_run
/// # async fn example(http: harness_core::client::Http, issuer: harness_core::auth::Issuer) -> harness_core::Result {
/// use harness_core::auth::{Trap, attacks, judge, valid_variants};
///
/// let trap = Trap::open().await?;
/// let (attacks, valid) = (attacks(&issuer, trap.url()), valid_variants(&issuer));
/// let report = judge(&attacks, &valid, &trap, async |request| http.get("/v1/me").token(request).await.map(|answer| answer.status())).await?;
/// assert!(report.outcome().is_pass(), "{report:?}");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ErrorKind::NoEvidence`] when the control does not hold: a request without a token must give 401, and the first good
/// token must pass. Errors of `send` are passed on.
pub async fn judge<F>(
    attacks: &[Attack],
    valid: &[Valid],
    trap: &Trap,
    send: impl Fn(TokenRequest) -> F,
) -> CoreResult<AttackReport>
where
    F: Future<Output = CoreResult<u16>>,
{
    let control = |what: &str, status: u16| {
        Error::new(ErrorKind::NoEvidence, format!("{what} gives status {status}: no refusal means anything"))
            .remedy("is authentication switched on, and does the service trust this issuer?")
    };
    let nobody = send(TokenRequest::default()).await?;
    if nobody != 401 {
        return Err(control("a request without a token", nobody));
    }
    if let Some(first) = valid.first() {
        let somebody = send(first.request.clone()).await?;
        if !(200..300).contains(&somebody) {
            return Err(control("a good token", somebody));
        }
    }
    let mut report = AttackReport { refused: 0, passed: Vec::new(), rejected: Vec::new(), fetches: 0 };
    for attack in attacks {
        match send(attack.request.clone()).await? {
            status if status == attack.status => report.refused += 1,
            status => report.passed.push((attack.name.clone(), status)),
        }
    }
    for variant in valid {
        let status = send(variant.request.clone()).await?;
        if !(200..300).contains(&status) {
            report.rejected.push((variant.name, status));
        }
    }
    report.fetches = trap.visits();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Issuer, Rule, TokenRequest, Verifier, attacks, valid_variants};
    use super::{Trap, judge};
    use crate::error::{CoreResult, ErrorKind};

    #[tokio::test]
    async fn services_are_judged_and_without_a_control_nothing_is_said() -> CoreResult {
        let issuer = Issuer::new(Algorithm::Es256, "i", "a");
        let trap = Trap::open().await?;
        let (attacks, valid) = (attacks(&issuer, trap.url()), valid_variants(&issuer));
        let status = |verifier: &Verifier, request: &TokenRequest| {
            verifier.verify_request(request, "project-a").map_or_else(super::super::Refusal::status, |_| 200)
        };
        let right = Verifier::of(&issuer);
        let report = judge(&attacks, &valid, &trap, async |request| Ok(status(&right, &request))).await?;
        assert!(report.outcome().is_pass() && report.refused >= 45, "{report:?}");
        let careless = right.clone().without(Rule::End);
        let report = judge(&attacks, &valid, &trap, async |request| Ok(status(&careless, &request))).await?;
        assert!(report.outcome().is_fail() && report.passed.iter().all(|(name, _)| name.contains("end")), "{report:?}");
        for everybody in [200, 500, 401] {
            let error = judge(&attacks, &valid, &trap, async |_| Ok(everybody)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoEvidence, "status {everybody} for everybody");
        }
        tokio::net::TcpStream::connect(&trap.url()[7..trap.url().len() - 10]).await?;
        let report = judge(&attacks, &valid, &trap, async |request| Ok(status(&right, &request))).await;
        let visited =
            crate::wait::wait_for("the visit", std::time::Duration::from_secs(5), async || match trap.visits() {
                0 => crate::wait::Progress::NotYet("nobody came".to_owned()),
                n => crate::wait::Progress::Ready(n),
            });
        assert_eq!(visited.await?, 1);
        drop(report);
        let report = judge(&attacks, &valid, &trap, async |request| Ok(status(&right, &request))).await?;
        assert!(report.outcome().is_fail(), "{report:?}");
        Ok(())
    }
}
