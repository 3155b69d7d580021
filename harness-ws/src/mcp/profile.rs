//! What is expected of a server: a protocol version, the rules of the house, and the fixtures that checks may use.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::{Value, json};

use crate::conformance::{Batches, WelcomeFrame};
use crate::jsonrpc::Call;

/// A version of the Model Context Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// The first one; says nothing about batches.
    V2024_11_05,
    /// Batches must be served.
    V2025_03_26,
    /// No batches; structured tool output, resource links.
    V2025_06_18,
    /// The last one with sessions and `initialize`.
    V2025_11_25,
    /// Stateless: `server/discover`, and `_meta` with every request.
    V2026_07_28,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] =
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];

    /// As it stands on the wire, `2025-11-25`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The version of this text, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.text() == text)
    }

    /// True from 2026-07-28 on: no `initialize`, no session, `_meta` with every request.
    #[must_use]
    pub fn is_stateless(self) -> bool {
        self >= Self::V2026_07_28
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A role, the tool that is tried when the profile names none, and its arguments.
type Usual = (Role, &'static str, &'static [(&'static str, &'static str)]);

/// A part that a check needs a server to play, and how this server is asked to play it.
///
/// In the arguments, the text `{key}` or `{value}` is replaced by what the check wants to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// A tool that gives `{value}` back in its content.
    Echo,
    /// A tool that always fails in its work.
    Fail,
    /// A tool that waits until [`Role::Release`] is called with the same `{key}` on the same connection.
    Hold,
    /// Ends the waiting of `{key}` and gives back how many held calls have finished.
    Release,
    /// A tool that reports progress before it answers.
    Progress,
    /// A tool that logs `{value}` at the level `{key}`.
    Log,
    /// Keeps `{value}` under `{key}` for the session.
    Remember,
    /// Gives back what [`Role::Remember`] kept under `{key}`.
    Recall,
    /// Changes the resource whose address is `{value}`.
    Touch,
    /// Changes the set of tools.
    Toggle,
    /// A tool with an `outputSchema`.
    Structured,
    /// A tool whose content is of several types.
    Media,
    /// A tool that needs the client to sample.
    Sample,
    /// Gives back the `traceparent` that came in `_meta`.
    Trace,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Echo,
        Self::Fail,
        Self::Hold,
        Self::Release,
        Self::Progress,
        Self::Log,
        Self::Remember,
        Self::Recall,
        Self::Touch,
        Self::Toggle,
        Self::Structured,
        Self::Media,
        Self::Sample,
        Self::Trace,
    ];

    /// Every role with the tool name that is tried when the profile names none, and its arguments.
    const USUAL: [Usual; 14] = [
        (Self::Echo, "echo", &[("text", "{value}")]),
        (Self::Fail, "fail", &[]),
        (Self::Hold, "hold", &[("key", "{key}")]),
        (Self::Release, "release", &[("key", "{key}")]),
        (Self::Progress, "progress", &[]),
        (Self::Log, "log", &[("level", "{key}"), ("text", "{value}")]),
        (Self::Remember, "remember", &[("key", "{key}"), ("value", "{value}")]),
        (Self::Recall, "recall", &[("key", "{key}")]),
        (Self::Touch, "touch", &[("uri", "{value}")]),
        (Self::Toggle, "toggle", &[]),
        (Self::Structured, "structured", &[]),
        (Self::Media, "media", &[]),
        (Self::Sample, "sample", &[]),
        (Self::Trace, "trace", &[]),
    ];

    /// The name of the tool that is tried when the profile names none.
    #[must_use]
    pub fn usual_name(self) -> &'static str {
        Self::USUAL.iter().find(|(role, ..)| *role == self).map_or("", |(_, name, _)| name)
    }

    fn usual(self) -> Call {
        let arguments = Self::USUAL.iter().find(|(role, ..)| *role == self).map_or(&[][..], |(.., args)| args);
        let arguments: serde_json::Map<_, _> =
            arguments.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        Call::new(self.usual_name(), Value::Object(arguments))
    }
}

/// What becomes of a WebSocket on which nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Idle {
    /// It is kept alive: a ping comes within this time, and the conversation goes on.
    Pinged(Duration),
    /// It is left by a close frame after this time, and not before.
    Closed(Duration),
}

/// What becomes of a second WebSocket that shows the id of a session which has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecondSocket {
    /// It is refused, by a status of 400 to 499 or by a close frame, and the first one goes on.
    Refused,
    /// It takes over: what the session keeps goes along, and the first one is left by a close frame.
    TakesOver,
    /// Both speak in the same session, each answered on its own socket.
    Shares,
}

/// What a server is measured against. Always named in results: nothing here is an official certificate.
///
/// ```
/// use harness_ws::mcp::{Profile, Role, Version};
/// use serde_json::json;
///
/// let house = Profile::named("mcp-2025-11-25")?
///     .house("orders") // the name says that there are rules of the house
///     .requires_welcome()
///     .plays(Role::Remember, "session_set", json!({"key": "{key}", "value": "{value}"}));
/// assert_eq!((house.version(), house.name()), (Version::V2025_11_25, "mcp-2025-11-25+orders"));
/// # harness_ws::CoreResult::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Profile {
    name: String,
    version: Version,
    pub(crate) welcome: WelcomeFrame,
    pub(crate) batches: Batches,
    pub(crate) subprotocol: Option<String>,
    pub(crate) largest_message: Option<usize>,
    pub(crate) idle: Option<Idle>,
    pub(crate) second_socket: Option<(String, SecondSocket)>,
    roles: BTreeMap<Role, Call>,
    pub(crate) client_capabilities: Value,
}

impl Profile {
    /// The rules of a version and nothing else.
    pub fn new(version: Version) -> Self {
        let batches = if version == Version::V2025_03_26 { Batches::Answered } else { Batches::Refused };
        Self {
            name: format!("mcp-{version}"),
            version,
            welcome: WelcomeFrame::Skipped,
            batches,
            subprotocol: None,
            largest_message: None,
            idle: None,
            second_socket: None,
            roles: BTreeMap::new(),
            client_capabilities: json!({}),
        }
    }

    /// `mcp-` and a version; more rules of the house behind plus signs: `+welcome` (the first frame is a welcome),
    /// `+batches` (batches are answered), `+subprotocol` (`mcp` is offered).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] listing the names that exist.
    pub fn named(name: &str) -> CoreResult<Self> {
        let mut parts = name.split('+');
        let version = parts.next().and_then(|base| base.strip_prefix("mcp-")).and_then(Version::parse);
        let unknown = |what: &str| {
            let names: Vec<_> = Version::ALL.iter().map(|version| format!("mcp-{version}")).collect();
            Error::new(ErrorKind::Config, format!("there is no profile `{name}`: {what}"))
                .remedy(format!("one of {}, with +welcome, +batches or +subprotocol", names.join(", ")))
        };
        let mut profile = Self::new(version.ok_or_else(|| unknown("the version is not known"))?);
        for rule in parts {
            profile = match rule {
                "welcome" => profile.requires_welcome(),
                "batches" => profile.batches(Batches::Answered),
                "subprotocol" => profile.subprotocol("mcp"),
                _ => return Err(unknown(&format!("`{rule}` is no rule"))),
            };
            name.clone_into(&mut profile.name);
        }
        Ok(profile)
    }

    /// Adds the name of the house whose rules follow.
    pub fn house(mut self, name: &str) -> Self {
        self.name = format!("{}+{name}", self.name);
        self
    }

    /// Demands a welcome with a session id as the first frame, which is outside the specification.
    pub fn requires_welcome(mut self) -> Self {
        self.welcome = WelcomeFrame::Required;
        self
    }

    /// What is done with a batch, in place of what the version says.
    pub fn batches(mut self, batches: Batches) -> Self {
        self.batches = batches;
        self
    }

    /// Offers a WebSocket subprotocol, such as `mcp`.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// The largest message in octets that the server takes over WebSocket; one octet more has to be refused by a close frame
    /// with code 1009 (RFC 6455, section 7.4.1). Nothing is demanded unless told.
    pub fn largest_message(mut self, octets: usize) -> Self {
        self.largest_message = Some(octets);
        self
    }

    /// What the server does with a WebSocket on which nothing is said. Nothing is demanded unless told.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.idle = Some(idle);
        self
    }

    /// What the server does with a second WebSocket that shows the id of a session, as its welcome told it, in this header of
    /// the handshake. Nothing is demanded unless told; it goes with [`Profile::requires_welcome`].
    pub fn second_socket(mut self, header: impl Into<String>, rule: SecondSocket) -> Self {
        self.second_socket = Some((header.into(), rule));
        self
    }

    /// Says which tool plays a role, and with what arguments (`{key}` and `{value}` are filled in).
    pub fn plays(mut self, role: Role, tool: impl Into<String>, arguments: Value) -> Self {
        self.roles.insert(role, Call::new(tool, arguments));
        self
    }

    /// What the client says it can do; nothing unless told.
    pub fn client_capabilities(mut self, capabilities: Value) -> Self {
        self.client_capabilities = capabilities;
        self
    }

    /// The same without a demand for a welcome.
    pub(crate) fn tolerant(mut self) -> Self {
        self.welcome = WelcomeFrame::Skipped;
        self
    }

    /// The name that stands in every result.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The page of the specification that a section such as `basic/lifecycle#shutdown` stands on.
    #[must_use]
    pub fn link(&self, section: &str) -> String {
        format!("https://modelcontextprotocol.io/specification/{}/{section}", self.version)
    }

    /// The tool of a role with its arguments filled in.
    pub(crate) fn role(&self, role: Role, key: &str, value: &str) -> Call {
        let call = self.roles.get(&role).cloned().unwrap_or_else(|| role.usual());
        let fill = |text: &str| Value::String(text.replace("{key}", key).replace("{value}", value));
        let mut arguments = call.params;
        if let Some(members) = arguments.as_object_mut() {
            for member in members.values_mut() {
                if let Value::String(text) = member {
                    *member = fill(text);
                }
            }
        }
        Call::new("tools/call", json!({"name": call.method, "arguments": arguments}))
    }

    /// The name of the tool that plays a role.
    pub(crate) fn tool_of(&self, role: Role) -> String {
        self.roles.get(&role).map_or_else(|| role.usual_name().to_owned(), |call| call.method.clone())
    }
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;
    use serde_json::json;

    use super::{Batches, Profile, Role, Version};

    #[test]
    fn names_are_read_and_unknown_ones_are_refused_with_the_list() {
        assert_eq!(Profile::named("mcp-2025-03-26").unwrap().batches, Batches::Answered);
        let house = Profile::named("mcp-2025-11-25+welcome+batches").unwrap();
        assert_eq!((house.batches, house.name()), (Batches::Answered, "mcp-2025-11-25+welcome+batches"));
        for name in ["", "mcp", "mcp-2020-01-01", "mcp-2025-11-25+x", "2025-11-25"] {
            let error = Profile::named(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{name}");
            assert!(error.remedy_text().unwrap().contains("mcp-2026-07-28"), "{error:?}");
        }
    }

    #[test]
    fn roles_fill_in_what_a_check_wants_to_say() {
        let profile = Profile::new(Version::V2025_11_25);
        let call = profile.role(Role::Remember, "k", "v");
        assert_eq!(call.params, json!({"name": "remember", "arguments": {"key": "k", "value": "v"}}));
        let own = profile.plays(Role::Echo, "say", json!({"n": 1, "s": "<{value}>"}));
        assert_eq!(own.role(Role::Echo, "", "x").params, json!({"name": "say", "arguments": {"n": 1, "s": "<x>"}}));
    }
}
