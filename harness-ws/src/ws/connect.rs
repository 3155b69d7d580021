//! Opening: the address, the request, and the server's answer judged by RFC 6455 section 4.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use harness_core::client::mask;
use harness_core::wait::{pause, seconds, within};
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout_at;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::codec::{Decoder, Role as Side};
use super::recording::Recording;
use super::socket::Socket;
use super::{End, Refusal, Transcript, Wire, Ws};

/// The longest head of an answer that is read.
const LONGEST_HEAD: usize = 16 * 1024;
/// How much of a refusal's body is read.
const BODY_EXCERPT: usize = 4 * 1024;
/// How long the body of a refusal is waited for.
const BODY_WAIT: Duration = Duration::from_millis(500);

/// A connection to be: headers, query, limits and bounds.
#[must_use = "nothing is opened before `connect`"]
#[derive(Debug, Clone)]
pub struct Connect {
    url: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
    open_limit: Duration,
    limit: Duration,
    largest_message: usize,
    inbox_bound: usize,
    transcript_bound: usize,
    recorded: bool,
    trickle: Option<Duration>,
    #[cfg(feature = "tls")]
    trust: super::socket::Trust,
}

/// An open WebSocket before anything was read from it.
struct Opened {
    socket: Socket,
    rest: Vec<u8>,
    shown: String,
}

/// Where to connect and what to ask for.
struct Target {
    host: String,
    port: u16,
    authority: String,
    path: String,
    shown: String,
    #[cfg(feature = "tls")]
    secure: bool,
}

impl Connect {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            subprotocols: Vec::new(),
            open_limit: Duration::from_secs(5),
            limit: Duration::from_secs(5),
            largest_message: 16 << 20,
            inbox_bound: 1024,
            transcript_bound: 256,
            recorded: false,
            trickle: None,
            #[cfg(feature = "tls")]
            trust: super::socket::Trust::default(),
        }
    }

    /// Sends a header with the handshake.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends `Authorization: Bearer …`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// Adds a query parameter, percent-encoded (RFC 3986, section 2.1).
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Offers a subprotocol; the server may choose one of those offered.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocols.push(name.into());
        self
    }

    /// Limits connecting and the handshake together; 5 s unless told.
    pub fn open_limit(mut self, limit: Duration) -> Self {
        self.open_limit = limit;
        self
    }

    /// Limits every send and receive that names no limit of its own; 5 s unless told.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Gives up on a message of more bytes; 16 MiB unless told.
    pub fn largest_message(mut self, bytes: usize) -> Self {
        self.largest_message = bytes;
        self
    }

    /// Keeps at most so many unread messages; 1024 unless told. The oldest goes first, and is counted.
    pub fn unread_bound(mut self, messages: usize) -> Self {
        self.inbox_bound = messages.max(1);
        self
    }

    /// Keeps the last so many messages for the transcript; 256 unless told.
    pub fn transcript_bound(mut self, messages: usize) -> Self {
        self.transcript_bound = messages;
        self
    }

    /// Keeps every message in full for [`Ws::recording`], which a transcript does not.
    pub fn record(mut self) -> Self {
        self.recorded = true;
        self
    }

    /// Sends the handshake octet by octet with a pause before each: a slow client, which a server may give up on but not
    /// choke on.
    pub fn trickled(mut self, pause: Duration) -> Self {
        self.trickle = Some(pause);
        self
    }

    /// Trusts the certificates of a PEM file for `wss://` addresses, and no others.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the text holds no certificate that can be read.
    #[cfg(feature = "tls")]
    pub fn trust(mut self, pem: &[u8]) -> CoreResult<Self> {
        self.trust = super::socket::Trust::of(pem)?;
        Ok(self)
    }

    /// Opens the connection.
    ///
    /// # Errors
    /// As [`Ws::connect`].
    pub async fn connect(self) -> CoreResult<Ws> {
        let Opened { socket, rest, shown } = self.open().await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .max_message_size(Some(self.largest_message))
            .max_frame_size(Some(self.largest_message));
        let stream = WebSocketStream::from_partially_read(socket, rest, Role::Client, Some(config)).await;
        Ok(self.over(stream, shown))
    }

    /// Opens the connection as one of frames, legal or not.
    ///
    /// # Errors
    /// As [`Ws::connect`].
    pub async fn connect_wire(self) -> CoreResult<Wire> {
        let Opened { socket, rest, shown } = self.open().await?;
        let decoder = Decoder::new(Side::Client).largest_message(self.largest_message);
        Ok(Wire::new(socket, rest, Side::Client, decoder, shown, self.limit, Transcript::new(self.transcript_bound)))
    }

    /// The conversation over a stream whose handshake is done.
    pub(crate) fn over(self, stream: WebSocketStream<Socket>, shown: String) -> Ws {
        Ws {
            stream,
            url: shown,
            limit: self.limit,
            inbox: VecDeque::new(),
            inbox_bound: self.inbox_bound,
            dropped: 0,
            transcript: Transcript::new(self.transcript_bound),
            recording: self.recorded.then(Recording::default),
            end: None,
            next_id: 0,
        }
    }

    async fn open(&self) -> CoreResult<Opened> {
        let target = self.target()?;
        let key = generate_key();
        let request = self.request(&target, &key)?;
        let deadline = Instant::now() + self.open_limit;
        let mut socket = self.reach(&target, deadline).await?;
        let exchange = async {
            match self.trickle {
                None => socket.write_all(request.as_bytes()).await?,
                Some(wait) => {
                    for octet in request.as_bytes() {
                        pause(wait).await;
                        socket.write_all(&[*octet]).await?;
                    }
                }
            }
            read_head(&mut socket).await
        };
        let (head, rest) = match timeout_at(deadline.into(), exchange).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                let what = format!("the handshake with {} broke off", target.shown);
                return Err(Error::new(ErrorKind::Connect, what).caused_by(error));
            }
            Err(_) => return Err(self.no_answer(&target)),
        };
        let answer = Answer::parse(&head);
        if let Err(why) = answer.judge(&key, &self.subprotocols) {
            let body = read_body(&mut socket, &answer, rest, deadline).await;
            return Err(answer.refuse(why, &body, &target.shown));
        }
        Ok(Opened { socket, rest, shown: target.shown })
    }

    /// TCP, and TLS where the address says so.
    async fn reach(&self, target: &Target, deadline: Instant) -> CoreResult<Socket> {
        let address = (target.host.as_str(), target.port);
        let opening = within(format!("connecting to {}", target.shown), self.open_limit, TcpStream::connect(address));
        let socket = opening.await?.map_err(|error| {
            Error::new(ErrorKind::Connect, format!("could not connect to {}", target.shown))
                .caused_by(error)
                .remedy("is the service started, and is this its port?")
        })?;
        let _ = socket.set_nodelay(true);
        #[cfg(feature = "tls")]
        if target.secure {
            let shaking = self.trust.connect(&target.host, socket);
            let shaken = timeout_at(deadline.into(), shaking).await.map_err(|_| self.no_answer(target))?;
            return shaken.map_err(|error| {
                let what = format!("the TLS handshake with {} failed", target.shown);
                Error::new(ErrorKind::Connect, what)
                    .caused_by(error)
                    .remedy("is its certificate trusted, and for this host?")
            });
        }
        let _ = deadline;
        Ok(Socket::Plain(socket))
    }

    fn no_answer(&self, target: &Target) -> Error {
        let what = format!("{} did not answer the handshake within {}", target.shown, seconds(self.open_limit));
        Error::new(ErrorKind::Timeout, what).caused_by(End::Timeout)
    }

    /// A connected socket, the path to ask for and the authority to name: for requests that are made by hand.
    pub(crate) async fn reached(&self, deadline: Instant) -> CoreResult<(Socket, String, String)> {
        let target = self.target()?;
        Ok((self.reach(&target, deadline).await?, target.path, target.authority))
    }

    /// The headers that were asked for.
    pub(crate) fn own_headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The address, secrets masked.
    pub(crate) fn shown(&self) -> CoreResult<String> {
        Ok(self.target()?.shown)
    }

    /// The socket address and the request of a handshake with a given key, for who opens many connections to it.
    pub(crate) async fn prepared(&self, key: &str) -> CoreResult<(std::net::SocketAddr, String, String)> {
        let target = self.target()?;
        let request = self.request(&target, key)?;
        let found = lookup_host((target.host.as_str(), target.port)).await.ok().and_then(|mut found| found.next());
        let found = found.ok_or_else(|| Error::new(ErrorKind::Connect, format!("{} has no address", target.shown)))?;
        Ok((found, request, target.shown))
    }

    fn target(&self) -> CoreResult<Target> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::Config, format!("`{}` cannot be connected to: {why}", mask::url(&self.url)))
                .remedy("give an address such as ws://127.0.0.1:8000/path")
        };
        let uri: Uri = self.url.parse().map_err(|error| refuse("it is not a URL").caused_by(error))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") if cfg!(feature = "tls") => {}
            Some("wss") => return Err(refuse("TLS is behind the feature `tls`")),
            _ => return Err(refuse("its scheme is not ws")),
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || authority.contains('@') {
            return Err(refuse("it needs a host and no user name"));
        }
        let mut path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        if path.starts_with('?') {
            path.insert(0, '/');
        }
        for (name, value) in &self.query {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&format!("{}={}", percent_encoded(name), percent_encoded(value)));
        }
        let secure = uri.scheme_str() == Some("wss");
        let (scheme, usual) = if secure { ("wss", 443) } else { ("ws", 80) };
        let shown = mask::url(&format!("{scheme}://{authority}{path}"));
        Ok(Target {
            host,
            port: uri.port_u16().unwrap_or(usual),
            authority,
            path,
            shown,
            #[cfg(feature = "tls")]
            secure,
        })
    }

    fn request(&self, target: &Target, key: &str) -> CoreResult<String> {
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\n",
            target.path, target.authority
        );
        let offer = ("Sec-WebSocket-Protocol".to_owned(), self.subprotocols.join(", "));
        let offer = (!self.subprotocols.is_empty()).then_some(&offer);
        for (name, value) in self.headers.iter().chain(offer) {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty()
                || !name.bytes().all(token)
                || value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
            {
                let what =
                    format!("the header `{}` cannot be sent: it holds forbidden characters", name.escape_debug());
                return Err(Error::new(ErrorKind::Config, what));
            }
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        Ok(request)
    }
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Reads up to the empty line; gives the head and the bytes after it, which may already be frames.
pub(crate) async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut read = Vec::with_capacity(1024);
    loop {
        let from = read.len().saturating_sub(3);
        let got = socket.read_buf(&mut read).await?;
        if let Some(at) = read[from..].windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = read.split_off(from + at + 4);
            return Ok((read, rest));
        }
        // What is not HTTP has no empty line; what came so far is judged then.
        if got == 0 || read.len() > LONGEST_HEAD {
            return Ok((read, Vec::new()));
        }
    }
}

/// Reads the beginning of a refusal's body; a server that promises one and sends none is not waited for.
async fn read_body(
    socket: &mut (impl AsyncRead + Unpin),
    answer: &Answer,
    mut body: Vec<u8>,
    deadline: Instant,
) -> Vec<u8> {
    let promised = answer.header("content-length").and_then(|length| length.parse().ok());
    let wanted = promised.unwrap_or(BODY_EXCERPT).min(BODY_EXCERPT);
    let deadline = deadline.min(Instant::now() + BODY_WAIT);
    while answer.status != 0 && body.len() < wanted {
        match timeout_at(deadline.into(), socket.read_buf(&mut body)).await {
            Ok(Ok(got)) if got > 0 => {}
            _ => break,
        }
    }
    body.truncate(BODY_EXCERPT);
    body
}

/// The head of the server's answer; status 0 when it is not HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    beginning: String,
}

impl Answer {
    pub(crate) fn parse(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let version = words.next().unwrap_or_default();
        let status =
            words.next().and_then(|word| word.parse().ok()).filter(|_| version.starts_with("HTTP/1.1")).unwrap_or(0);
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { status, headers, beginning: text.chars().take(200).collect() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// RFC 6455, section 4.1, the client's checks of the server's answer; `Err(None)` is an honest refusal.
    pub(crate) fn judge(&self, key: &str, offered: &[String]) -> Result<(), Option<String>> {
        let has = |name: &str, word: &str| {
            self.header(name).is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
        };
        match self.status {
            0 => return Err(Some(format!("the answer is not HTTP/1.1: {:?}", self.beginning))),
            101 => {}
            _ => return Err(None),
        }
        let why = if !has("upgrade", "websocket") {
            "status 101 lacks `Upgrade: websocket`".to_owned()
        } else if !has("connection", "upgrade") {
            "status 101 lacks `Connection: Upgrade`".to_owned()
        } else if self.header("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
            "Sec-WebSocket-Accept does not answer the key that was sent".to_owned()
        } else if let Some(extensions) = self.header("sec-websocket-extensions") {
            format!("the server chose the extension {extensions}, and none was offered")
        } else {
            match self.header("sec-websocket-protocol") {
                Some(chosen) if !offered.iter().any(|name| name == chosen) => {
                    format!("the server chose the subprotocol {chosen}, which was not offered")
                }
                _ => return Ok(()),
            }
        };
        Err(Some(why))
    }

    pub(crate) fn refuse(self, why: Option<String>, body: &[u8], shown: &str) -> Error {
        let body = mask::text(&String::from_utf8_lossy(body));
        let masked = |(name, value): (String, String)| {
            let value = if mask::is_secret_name(&name) { mask::MASK.to_owned() } else { mask::text(&value) };
            (name, value)
        };
        let kind = if why.is_some() { ErrorKind::Protocol } else { ErrorKind::Connect };
        let headers = self.headers.into_iter().map(masked).collect();
        let refusal = Refusal { status: self.status, headers, body, why: why.unwrap_or_default() };
        let mut error = Error::new(kind, format!("{shown} did not become a WebSocket"));
        for (name, value) in &refusal.headers {
            error = error.tried(format!("header {name}: {value}"));
        }
        if !refusal.body.is_empty() {
            error = error.tried(format!("body begins: {}", refusal.body.chars().take(512).collect::<String>()));
        }
        error.caused_by(End::HandshakeRejected(Box::new(refusal)))
    }
}
