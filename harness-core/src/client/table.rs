//! A service's routes as data: one table drives calls, documentation and the matrix of who may do what.

use std::fmt;

use harness_props::Outcome;
use reqwest::Method;
use serde_json::Value;

use super::call::Call;
use super::http::Http;
use crate::error::{CoreResult, Error, ErrorKind};

/// One route.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Route {
    name: String,
    method: Method,
    path: String,
    guarded: bool,
    body: Value,
    status: u16,
}

impl Route {
    /// A route with a name of its own, and a path with `{places}`; it answers 200 and everybody may call it, unless told.
    pub fn new(name: impl Into<String>, method: Method, path: impl Into<String>) -> Self {
        Self { name: name.into(), method, path: path.into(), guarded: false, body: Value::Null, status: 200 }
    }

    /// A token is needed.
    pub fn guarded(mut self) -> Self {
        self.guarded = true;
        self
    }

    /// A body that is good, for whoever calls without one of their own.
    pub fn body(mut self, body: Value) -> Self {
        self.body = body;
        self
    }

    /// The status of a good call.
    pub fn answers(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

/// All routes of a service.
///
/// ```
/// use harness_core::client::{ApiTable, Method, Route};
///
/// let table = ApiTable::new([
///     Route::new("spawn", Method::POST, "/v1/agents").guarded().answers(201),
///     Route::new("result", Method::GET, "/v1/agents/{agent}/result").guarded(),
/// ])?;
/// assert_eq!(table.path("result", &[("agent", "a/7")])?, "/v1/agents/a%2F7/result");
/// assert!(table.to_string().contains("| result | GET | `/v1/agents/{agent}/result` | yes | 200 |"));
/// # harness_core::CoreResult::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ApiTable {
    routes: Vec<Route>,
}

impl ApiTable {
    /// A table.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a name, or a method with a path, stands twice, or a path has no slash in front.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> CoreResult<Self> {
        let routes: Vec<Route> = routes.into_iter().collect();
        for (n, route) in routes.iter().enumerate() {
            let same =
                |other: &&Route| other.name == route.name || (other.method == route.method && other.path == route.path);
            if !route.path.starts_with('/') || routes[..n].iter().any(|other| same(&other)) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("the route `{}` stands twice or has no path", route.name),
                ));
            }
        }
        Ok(Self { routes })
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|route| route.name.as_str())
    }

    fn route(&self, name: &str) -> CoreResult<&Route> {
        self.routes.iter().find(|route| route.name == name).ok_or_else(|| {
            let names = self.names().collect::<Vec<_>>().join(", ");
            Error::new(ErrorKind::Config, format!("there is no route `{name}`")).remedy(format!("one of {names}"))
        })
    }

    /// The path of a route with its places filled in, percent-encoded.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an unknown route, and for a place that is not filled or does not exist.
    pub fn path(&self, name: &str, places: &[(&str, &str)]) -> CoreResult<String> {
        let mut path = self.route(name)?.path.clone();
        for (place, value) in places {
            let mark = format!("{{{place}}}");
            if !path.contains(&mark) {
                return Err(Error::new(ErrorKind::Config, format!("the route `{name}` has no place `{place}`")));
            }
            path = path.replace(&mark, &encoded(value));
        }
        match path.find('{') {
            Some(_) => {
                Err(Error::new(ErrorKind::Config, format!("a place of the route `{name}` is not filled: {path}")))
            }
            None => Ok(path),
        }
    }

    /// A call of a route, with its good body.
    ///
    /// # Errors
    /// As [`ApiTable::path`].
    pub fn call(&self, http: &Http, name: &str, places: &[(&str, &str)]) -> CoreResult<Call> {
        let (route, path) = (self.route(name)?, self.path(name, places)?);
        let call = http.request(route.method.clone(), &path);
        Ok(if route.body.is_null() { call } else { call.json(&route.body) })
    }

    /// Calls every route without a token: guarded ones have to answer 401, the others anything but 401 and 403. Places are
    /// filled with `fill`.
    ///
    /// # Errors
    /// As calls are.
    pub async fn check_guards(&self, http: &Http, fill: &str) -> CoreResult<Vec<(String, Outcome)>> {
        let mut list = Vec::new();
        for route in &self.routes {
            let places: Vec<(String, &str)> = places(&route.path).into_iter().map(|place| (place, fill)).collect();
            let places: Vec<(&str, &str)> = places.iter().map(|(place, value)| (place.as_str(), *value)).collect();
            let status = self.call(http, &route.name, &places)?.await?.status();
            let outcome = match (route.guarded, status) {
                (true, 401) => Outcome::pass("401"),
                (true, status) => Outcome::fail(format!("without a token it answers {status}")),
                (false, status @ (401 | 403)) => Outcome::fail(format!("it is open to all and answers {status}")),
                (false, status) => Outcome::pass(status.to_string()),
            };
            list.push((route.name.clone(), outcome));
        }
        Ok(list)
    }
}

impl fmt::Display for ApiTable {
    /// The table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| name | method | path | token | status |\n|---|---|---|---|---|")?;
        self.routes.iter().try_for_each(|route| {
            let Route { name, method, path, guarded, status, .. } = route;
            writeln!(f, "| {name} | {method} | `{path}` | {} | {status} |", if *guarded { "yes" } else { "no" })
        })
    }
}

fn places(path: &str) -> Vec<String> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(place, _)| place.to_owned()).collect()
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
