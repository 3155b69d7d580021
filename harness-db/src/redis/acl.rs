//! Users of a Redis of one's own and what they may do, so that a test runs with the rights its service has in production
//! (Redis documentation, "ACL").

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;

use harness_core::run::fnv;
use harness_core::{CoreResult, Error, ErrorKind};
use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;

use super::{OwnRedis, wire};

/// A user and its rights, as the server is told after each start.
#[derive(Clone)]
pub(super) struct Grant {
    name: String,
    rules: Vec<String>,
    password: String,
}

impl fmt::Debug for Grant {
    /// Without the password: what is printed ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("name", &self.name).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Grant {
    /// Tells the server. What is not granted is forbidden; rights of an earlier grant are gone.
    pub(super) async fn apply(&self, connection: &mut MultiplexedConnection) -> CoreResult {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(&self.name).arg("reset").arg("on").arg(format!(">{}", self.password));
        // Database 1, where tests live, is not the one a connection begins in.
        command.arg("+select");
        let done: Result<(), _> = command.arg(&self.rules).query_async(connection).await;
        done.map_err(|error| {
            // Never the command itself: it holds the password.
            let what = format!("Redis does not take these rights for user `{}`: {}", self.name, self.rules.join(" "));
            let remedy = "write rules as ACL SETUSER takes them, such as `~app:* +get +set`";
            Error::new(ErrorKind::Config, what).remedy(remedy).caused_by(error)
        })
    }
}

/// A request for a user: say what it [can](UserRequest::can), and await it.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct UserRequest<'a> {
    own: &'a OwnRedis,
    grant: Grant,
}

impl<'a> UserRequest<'a> {
    pub(super) fn new(own: &'a OwnRedis, name: String) -> Self {
        let secret = fnv(format!("{}/{}/{name}", std::process::id(), own.address()).as_bytes());
        Self { own, grant: Grant { name, rules: Vec::new(), password: format!("harness-{secret:016x}") } }
    }

    /// Adds rights in the words of `ACL SETUSER`: `~app:* +get +set`, `+@read`, `&events`.
    pub fn can(mut self, rules: &str) -> Self {
        self.grant.rules.extend(rules.split_whitespace().map(str::to_owned));
        self
    }

    async fn serve(self) -> CoreResult<User> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.grant.name.is_empty() || !self.grant.name.chars().all(plain) || self.grant.name == "default" {
            let what = format!("`{}` cannot be the name of a user for tests", self.grant.name);
            return Err(Error::new(ErrorKind::Config, what)
                .remedy("use letters, digits, `-`, `_` and `.`; `default` is the harness' own"));
        }
        self.grant.apply(&mut self.own.connection().await?).await?;
        let settings = self.own.info().redis_settings().clone();
        let settings = settings.set_username(&*self.grant.name).set_password(&*self.grant.password);
        let info = self.own.info().clone().set_redis_settings(settings);
        let url = self.own.url_as(&format!("{}:{}", self.grant.name, self.grant.password));
        let user = User { name: self.grant.name.clone(), url, info };
        self.own.remember(self.grant);
        Ok(user)
    }
}

impl<'a> IntoFuture for UserRequest<'a> {
    type Output = CoreResult<User>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.serve())
    }
}

/// A user of an [`OwnRedis`]. It keeps its rights and its password over stop and start of the server.
#[derive(Clone)]
pub struct User {
    name: String,
    url: String,
    info: ConnectionInfo,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("url", &wire::masked(&self.url)).finish_non_exhaustive()
    }
}

impl User {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Logical database 1 as this user, with its password: for the system under test.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection as this user, to logical database 1.
    ///
    /// # Errors
    /// When the server refuses the connection or says nothing for 5 s.
    pub async fn connection(&self) -> CoreResult<MultiplexedConnection> {
        wire::connect(&wire::at_index(&self.info, 1)).await
    }
}
