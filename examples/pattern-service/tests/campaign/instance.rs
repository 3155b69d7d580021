//! Instances of the service: processes of their own on the servers of the campaign.

use harness_core::CoreResult;
use harness_core::client::Http;
use harness_core::scope::TestScope;
use harness_core::service::{Backend, Exec, Service, ServiceSpec};
use harness_core::wait::Progress;

use crate::pace::Pace;
use crate::world::{RATE_LIMIT, Urls};

/// One more instance of the service, for one scenario: what others measure is not to count its connections.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Its client.
    pub(crate) http: Http,
    pub(super) scope: TestScope,
}

impl Instance {
    /// Ends it.
    pub(crate) async fn end(self) -> CoreResult {
        self.scope.shutdown().await
    }
}

impl Instance {
    /// A client without a token of its own.
    pub(crate) fn stranger(&self) -> CoreResult<Http> {
        Http::new(self.http.base())
    }
}

/// What an instance is started with besides its servers.
#[derive(Debug)]
pub(super) struct Wishes<'a> {
    /// Planted defects.
    pub(super) plants: &'a [String],
    /// How long the circuit breaker stays open, among other lengths.
    pub(super) pace: Pace,
    /// The secure profile with this token.
    pub(super) token: Option<&'a str>,
    /// Further variables.
    pub(super) settings: &'a [(&'a str, String)],
}

/// Starts the service as a process of its own, and waits until it is healthy.
pub(super) async fn start_service(
    name: &str,
    scope: &TestScope,
    urls: &Urls,
    model: &str,
    wishes: &Wishes<'_>,
) -> CoreResult<Service> {
    let Wishes { plants, pace, token, settings } = wishes;
    let exec = Exec::new(env!("CARGO_BIN_EXE_pattern-service"))
        .args(["--listen", "127.0.0.1:{port}"])
        .env("TMWS_ENVIRONMENT", "testing")
        .env("TMWS_DATABASE_URL", &urls.database)
        .env("TMWS_REDIS_URL", &urls.redis)
        .env("TMWS_MODEL_URL", model)
        .env("TMWS_AUTH_ENABLED", token.is_some().to_string())
        .env("TMWS_BREAKER_OPEN_MS", pace.breaker_open().as_millis().to_string())
        .env("TMWS_LOG", "debug")
        .env("HARNESS_PLANT", plants.join(","));
    let exec = match token {
        Some(token) => exec.env("TMWS_TOKEN", *token).env("TMWS_RATE_LIMIT", RATE_LIMIT.to_string()),
        None => exec,
    };
    let exec = settings.iter().fold(exec, |exec, (name, value)| exec.env(*name, value));
    ServiceSpec::new(name, Backend::Process(exec))
        .ready(async |at| match healthy(&format!("http://{}", at.address)).await {
            Ok(()) => Progress::Ready(()),
            Err(error) => Progress::NotYet(error.to_string()),
        })
        .start(scope)
        .await
}

async fn healthy(base: &str) -> CoreResult {
    Http::new(base)?.get("/health").await?.expect_status(200).map(drop)
}
