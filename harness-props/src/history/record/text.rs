//! Histories as text: lines of JSON, and Jepsen's EDN. Both hold one event each: `type`, `process`, `f`, `value`, `time`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::edn;
use super::history::{End, History, HistoryError, Kind};

/// One event, spelled.
pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) process: u64,
    pub(super) f: &'static str,
    pub(super) value: Value,
    pub(super) nanos: Option<u64>,
}

impl Event {
    pub(super) fn json(&self) -> String {
        let mut event = json!({"type": self.kind, "process": self.process, "f": self.f, "value": self.value});
        if let Some(nanos) = self.nanos {
            event["time"] = nanos.into();
        }
        event.to_string()
    }

    fn edn(&self, index: usize) -> String {
        let Self { kind, process, f, value, nanos } = self;
        let mut line = format!("{{:index {index}, :type :{kind}, :process {process}, :f :{f}, :value ");
        edn::write(value, &mut line);
        if let Some(nanos) = nanos {
            let _ = write!(line, ", :time {nanos}");
        }
        line.push('}');
        line
    }
}

impl<K: Kind> History<K> {
    /// One line of JSON per event, in order. [`History::from_json`] reads it back.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.text(|_, event| event.json())
    }

    /// One EDN map per line and event, as Jepsen writes `history.edn`.
    #[must_use]
    pub fn to_edn(&self) -> String {
        self.text(|index, event| event.edn(index))
    }

    /// Reads lines of JSON, one event each: our own, or Jepsen's as JSON. Events of processes that are no numbers, such as
    /// the nemesis, are skipped.
    ///
    /// # Errors
    /// [`HistoryError::Torn`] when the last line is cut off, [`HistoryError::Malformed`] for what is no event, and
    /// whatever makes a history illegal.
    pub fn from_json(text: &str) -> Result<Self, HistoryError> {
        let mut history = Self::new();
        let lines = text.lines().count();
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let event: Value = serde_json::from_str(line).map_err(|error| match error.is_eof() && n + 1 == lines {
                true => HistoryError::Torn { line: n + 1 },
                false => HistoryError::Malformed { line: n + 1, why: error.to_string() },
            })?;
            history.read(&event, n + 1)?;
        }
        Ok(history)
    }

    /// Reads EDN as Jepsen writes it: a sequence of maps, or one vector of maps.
    ///
    /// # Errors
    /// As [`History::from_json`]; a text that ends within a map is torn.
    pub fn from_edn(text: &str) -> Result<Self, HistoryError> {
        let mut history = Self::new();
        let mut forms = edn::read(text)?;
        if let [Value::Array(events)] = &mut forms[..] {
            forms = std::mem::take(events);
        }
        for (n, event) in forms.iter().enumerate() {
            history.read(event, n + 1)?;
        }
        Ok(history)
    }

    fn read(&mut self, event: &Value, line: usize) -> Result<(), HistoryError> {
        let malformed = |why: String| HistoryError::Malformed { line, why };
        let (Some(kind), true) = (event["type"].as_str(), event.is_object()) else {
            return Err(malformed("no event: it has no type".to_owned()));
        };
        if event["process"].is_string() {
            return Ok(());
        }
        let process = event["process"].as_u64().ok_or_else(|| malformed("it has no process".to_owned()))?;
        let nanos = event["time"].as_u64();
        let (f, value) = (event["f"].as_str().unwrap_or("txn"), &event["value"]);
        let end = match kind {
            "invoke" => {
                self.invoke_at(process, K::call(f, value).map_err(malformed)?, nanos)?;
                return Ok(());
            }
            "ok" => {
                let open = self.open(process).ok_or(HistoryError::NotInvoked { process })?;
                End::Ok(K::reply(&open.call, value).map_err(malformed)?)
            }
            "fail" => End::Fail,
            "info" => End::Info,
            other => return Err(malformed(format!("`{other}` is no type of event"))),
        };
        self.complete_at(process, end, nanos)
    }

    fn text(&self, line: impl Fn(usize, &Event) -> String) -> String {
        // Two events per operation, by their place in the one order; unknown ends come last.
        let mut events: Vec<(u64, usize, bool)> = Vec::with_capacity(self.operations().len() * 2);
        for (index, operation) in self.operations().iter().enumerate() {
            events.push((operation.invoked.order, index, true));
            events.push((operation.ended.order, index, false));
        }
        events.sort_unstable();
        let mut text = String::new();
        for (n, (_, index, is_invocation)) in events.into_iter().enumerate() {
            let operation = &self.operations()[index];
            let (kind, reply, moment) = match (&operation.end, is_invocation) {
                (_, true) => ("invoke", None, Some(operation.invoked)),
                (End::Ok(reply), false) => ("ok", Some(reply), Some(operation.ended)),
                (End::Fail, false) => ("fail", None, Some(operation.ended)),
                (End::Info, false) => ("info", None, None),
            };
            let (f, value) = K::form(&operation.call, reply);
            let event = Event { kind, process: operation.process, f, value, nanos: moment.map(|moment| moment.nanos) };
            text.push_str(&line(n, &event));
            text.push('\n');
        }
        text
    }
}
