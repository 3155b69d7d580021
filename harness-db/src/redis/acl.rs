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
    /// A user without rights, whose password is of this process and what it is for.
    pub(super) fn new(name: String, at: &str) -> Self {
        let secret = fnv(format!("{}/{at}/{name}", std::process::id()).as_bytes());
        Self { name, rules: Vec::new(), password: format!("harness-{secret:016x}") }
    }

    /// Adds rights in the words of `ACL SETUSER`.
    pub(super) fn can(&mut self, rules: &str) {
        self.rules.extend(rules.split_whitespace().map(str::to_owned));
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `user:password`, for a URL.
    pub(super) fn login(&self) -> String {
        format!("{}:{}", self.name, self.password)
    }

    /// Refuses names that could not stand in a URL, and the one the harness itself needs.
    pub(super) fn check_name(&self) -> CoreResult {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !self.name.is_empty() && self.name.chars().all(plain) && self.name != "default" {
            return Ok(());
        }
        let what = format!("`{}` cannot be the name of a user for tests", self.name);
        Err(Error::new(ErrorKind::Config, what)
            .remedy("use letters, digits, `-`, `_` and `.`; `default` is the harness' own"))
    }

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
        Self { own, grant: Grant::new(name, &own.address().to_string()) }
    }

    /// Adds rights in the words of `ACL SETUSER`: `~app:* +get +set`, `+@read`, `&events`.
    pub fn can(mut self, rules: &str) -> Self {
        self.grant.can(rules);
        self
    }

    async fn serve(self) -> CoreResult<User> {
        self.grant.check_name()?;
        self.grant.apply(&mut self.own.connection().await?).await?;
        let user = self.own.user_of(&self.grant);
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
    /// Of this grant, at the server and the logical database of the connection.
    pub(super) fn new(grant: &Grant, url: String, info: &ConnectionInfo) -> Self {
        let settings = info.redis_settings().clone().set_username(&*grant.name).set_password(&*grant.password);
        Self { name: grant.name.clone(), url, info: info.clone().set_redis_settings(settings) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server as this user, with its password: for the system under test. Logical database 1 of an [`OwnRedis`], and 0 of a
    /// node of a topology.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection as this user, to the logical database of [`User::url`].
    ///
    /// # Errors
    /// When the server refuses the connection or says nothing for 5 s.
    pub async fn connection(&self) -> CoreResult<MultiplexedConnection> {
        wire::connect(&self.info).await
    }
}
