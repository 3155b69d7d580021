//! One conversation, whatever carries it: text messages both ways over WebSocket, Streamable HTTP or stdio.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use harness_core::client::mask;
use harness_core::service::{Dialogue, Exec};
use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind};

use super::posts::Posts;
use super::profile::Profile;
use crate::ws::{Connect, End, Message, Ws};

/// Messages of a conversation that are kept for a failure.
const KEPT: usize = 512;
/// Bytes of a message that are kept; longer ones cannot be replayed and say so.
const KEPT_BYTES: usize = 16 << 10;
/// How long a program may take to start.
const START: Duration = Duration::from_secs(30);
/// How long a program gets to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Where a server is, and what carries the messages.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// `ws://…`: one message per text message. WebSocket is no official transport of MCP.
    Ws {
        /// The address.
        url: String,
        /// Headers of the handshake.
        headers: Vec<(String, String)>,
    },
    /// `http://…`: Streamable HTTP.
    Http {
        /// The address of the endpoint.
        url: String,
        /// Headers of every request.
        headers: Vec<(String, String)>,
    },
    /// A program: one message per line. Every conversation starts it anew.
    Stdio(Exec),
}

impl Target {
    /// A server at an address, `ws://…` or `http://…`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another scheme.
    pub fn at(url: &str) -> CoreResult<Self> {
        let (url, headers) = (url.to_owned(), Vec::new());
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("ws") => Ok(Self::Ws { url, headers }),
            Some("http") => Ok(Self::Http { url, headers }),
            _ => Err(Error::new(ErrorKind::Config, format!("`{}` is not the address of a server", mask::url(&url)))
                .remedy("give one such as ws://127.0.0.1:8000/mcp or http://127.0.0.1:8000/mcp")),
        }
    }

    /// A program that speaks on its standard input and output.
    #[must_use]
    pub fn program(exec: Exec) -> Self {
        Self::Stdio(exec)
    }

    /// The same with one more header; a program has none.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Self::Ws { headers, .. } | Self::Http { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }

    /// The same with `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }
}

/// The handshake with a server over WebSocket, its headers included; no subprotocol is offered.
pub(crate) fn handshake(url: &str, headers: &[(String, String)], limit: Duration) -> Connect {
    let connect = Ws::builder(url).limit(limit).open_limit(limit.max(Duration::from_secs(2)));
    headers.iter().fold(connect, |connect, (name, value)| connect.header(name, value))
}

impl fmt::Display for Target {
    /// The address or the command line, secrets masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ws { url, .. } | Self::Http { url, .. } => f.write_str(&mask::url(url)),
            Self::Stdio(exec) => f.write_str(&mask::text(&exec.command_line())),
        }
    }
}

/// What carries the messages.
enum Carrier {
    Ws(Box<Ws>),
    Http(Box<Posts>),
    Stdio(Box<Dialogue>),
}

/// One open conversation with what was said in it.
pub(crate) struct Channel {
    carrier: Carrier,
    shown: String,
    said: VecDeque<String>,
    /// The first frame of a WebSocket that a check wants to see again.
    limit: Duration,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("target", &self.shown).finish_non_exhaustive()
    }
}

impl Channel {
    /// Opens a conversation. Nothing is said yet.
    pub(crate) async fn open(target: &Target, profile: &Profile, limit: Duration) -> CoreResult<Self> {
        let carrier = match target {
            Target::Ws { url, headers } => {
                let connect = handshake(url, headers, limit);
                let connect = match &profile.subprotocol {
                    Some(name) => connect.subprotocol(name),
                    None => connect,
                };
                Carrier::Ws(Box::new(connect.connect().await?))
            }
            Target::Http { url, headers } => Carrier::Http(Box::new(Posts::new(url, headers, limit)?)),
            Target::Stdio(exec) => Carrier::Stdio(Box::new(Dialogue::start(exec)?)),
        };
        Ok(Self::over(carrier, target.to_string(), limit))
    }

    /// A conversation over a connection that is open already.
    pub(crate) fn over_ws(ws: Ws, limit: Duration) -> Self {
        let shown = ws.url().to_owned();
        Self::over(Carrier::Ws(Box::new(ws)), shown, limit)
    }

    fn over(carrier: Carrier, shown: String, limit: Duration) -> Self {
        Self { carrier, shown, said: VecDeque::new(), limit }
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The WebSocket under it, if it is one.
    pub(crate) fn ws(&mut self) -> Option<&mut Ws> {
        match &mut self.carrier {
            Carrier::Ws(ws) => Some(ws),
            _ => None,
        }
    }

    /// How long the first answer may take: that of a program includes its start.
    pub(crate) fn first_limit(&self, limit: Duration) -> Duration {
        match self.carrier {
            Carrier::Stdio(_) => limit.max(START),
            _ => limit,
        }
    }

    pub(crate) fn is_http(&self) -> bool {
        matches!(self.carrier, Carrier::Http(_))
    }

    /// The session id that the server gave over HTTP.
    pub(crate) fn http_session(&self) -> Option<String> {
        match &self.carrier {
            Carrier::Http(posts) => posts.session(),
            _ => None,
        }
    }

    /// From now on the version stands in the header of every POST.
    pub(crate) fn agreed(&mut self, version: &str) {
        if let Carrier::Http(posts) = &mut self.carrier {
            posts.agreed(version);
        }
    }

    /// How often a stream over HTTP broke off and was taken up again.
    pub(crate) fn resumed(&self) -> usize {
        match &self.carrier {
            Carrier::Http(posts) => posts.resumed(),
            _ => 0,
        }
    }

    /// Listens to what the server says outside of its answers (era of sessions, HTTP); a server need not offer it.
    pub(crate) async fn listen(&mut self) {
        if let Carrier::Http(posts) = &mut self.carrier {
            posts.listen().await;
        }
    }

    /// Sends one message as it is.
    pub(crate) async fn send(&mut self, text: String) -> CoreResult {
        self.keep("> ", &text);
        match &mut self.carrier {
            Carrier::Ws(ws) => ws.send_raw(text).await,
            Carrier::Http(posts) => posts.send(text).await,
            Carrier::Stdio(program) => {
                let limit = self.limit;
                within("writing a line", limit, program.say(format!("{text}\n").as_bytes())).await?
            }
        }
    }

    /// The next message, whatever it is.
    pub(crate) async fn receive(&mut self, limit: Duration) -> CoreResult<String> {
        let text = match &mut self.carrier {
            Carrier::Ws(ws) => match ws.receive().within(limit).await? {
                Message::Text(text) => text,
                Message::Binary(bytes) => format!("(binary, {} bytes)", bytes.len()),
            },
            Carrier::Http(posts) => posts.receive(limit).await?,
            Carrier::Stdio(program) => match program.line(limit).await? {
                Some(line) => String::from_utf8_lossy(&line).into_owned(),
                None => {
                    let what = format!("{} closed its output", self.shown);
                    return Err(Error::new(ErrorKind::Connect, what).log(program.errors()).caused_by(End::Eof));
                }
            },
        };
        self.keep("< ", &text);
        Ok(text)
    }

    /// What was said, oldest first: `> ` before what was sent, `< ` before what came. Secrets are masked.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.said.iter().map(|line| mask::text(line)).collect()
    }

    fn keep(&mut self, arrow: &str, text: &str) {
        if self.said.len() == KEPT {
            self.said.pop_front();
        }
        let cut = text.char_indices().nth(KEPT_BYTES).map_or(text.len(), |(at, _)| at);
        let rest = if cut < text.len() { format!("… ({} bytes)", text.len()) } else { String::new() };
        self.said.push_back(format!("{arrow}{}{rest}", &text[..cut]));
    }

    /// Ends it as the transport wants it: a close frame, DELETE, or the end of input. True when the server went along.
    pub(crate) async fn close(self) -> CoreResult<bool> {
        match self.carrier {
            Carrier::Ws(mut ws) => Ok(matches!(ws.close().await?, End::Close { code: 1000 | 1005, .. })),
            Carrier::Http(posts) => posts.end_session().await,
            Carrier::Stdio(program) => Ok(program.shutdown(GRACE).await?.by_itself),
        }
    }
}
