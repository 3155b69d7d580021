//! Records: `201` is sent only after the commit, and every answer carries the checksum of the payload.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use crate::App;
use crate::error::ApiError;
use crate::plant::Plant;
use crate::store::{Store, StoreError};

/// What is to be kept.
#[derive(Debug, Clone, Deserialize)]
pub struct NewRecord {
    /// Key, 1 to 200 characters.
    pub id: String,
    /// Up to 64 KiB of text without NUL.
    pub payload: String,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Key.
    pub id: String,
    /// The text.
    pub payload: String,
    /// SHA-256 of the payload as it was received, in hexadecimal.
    pub checksum: String,
}

/// SHA-256 of a text in lower-case hexadecimal.
pub fn checksum(payload: &str) -> String {
    Sha256::digest(payload).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl NewRecord {
    fn check(&self) -> Result<(), ApiError> {
        if self.id.is_empty() || self.id.chars().count() > 200 || self.id.chars().any(char::is_control) {
            return Err(ApiError::invalid("id needs 1 to 200 characters, none of them a control character"));
        }
        if self.payload.len() > 64 * 1024 || self.payload.contains('\0') {
            return Err(ApiError::invalid("payload may have up to 65,536 bytes and no NUL"));
        }
        Ok(())
    }
}

impl App {
    /// Keeps a record; returns once it is committed.
    pub async fn add_record(&self, new: NewRecord) -> Result<Record, ApiError> {
        new.check()?;
        let plants = self.config.plants;
        let checksum = checksum(&new.payload);
        let receipt = Record { id: new.id, payload: new.payload, checksum };
        let number = self.records.fetch_add(1, Relaxed) + 1;
        let mut stored = receipt.clone();
        if plants.on(Plant::CorruptsPayload) && number.is_multiple_of(7) {
            stored.payload = with_one_byte_changed(&stored.payload);
        }
        if plants.on(Plant::AcknowledgesBeforeCommit) {
            let _ = self.write_behind.send(stored);
            return Ok(receipt);
        }
        self.store.insert_record(&stored).await?;
        if plants.on(Plant::DuplicateWrite) && number.is_multiple_of(5) {
            self.store.insert_record(&stored).await?;
        }
        Ok(receipt)
    }

    /// Planted defect: writes acknowledged records later and loses them when the database is away.
    pub(crate) async fn write_later(&self, mut queue: tokio::sync::mpsc::UnboundedReceiver<Record>) {
        while let Some(record) = queue.recv().await {
            sleep(Duration::from_millis(20)).await;
            let written = timeout(Duration::from_millis(200), self.store.insert_record(&record)).await;
            if matches!(written, Err(_) | Ok(Err(StoreError::Unavailable(_)))) {
                while queue.try_recv().is_ok() {}
            }
        }
    }
}

impl Store {
    async fn insert_record(&self, record: &Record) -> Result<(), StoreError> {
        if self.plants().on(Plant::ConcatenatesSql) {
            let Record { id, payload, checksum } = record;
            let text = format!("insert into records (id, payload, checksum) values ($1, '{payload}', '{checksum}')");
            let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id); // it is not: that is the plant
            return self.connection().await?.run(|c| query.execute(c)).await.map(|_| ());
        }
        let query = sqlx::query("insert into records (id, payload, checksum) values ($1, $2, $3)");
        let query = query.bind(&record.id).bind(&record.payload).bind(&record.checksum);
        self.connection().await?.run(|c| query.execute(c)).await.map(|_| ())
    }

    /// All records whose id begins with this prefix, in the order of their ids.
    pub async fn records(&self, prefix: &str) -> Result<Vec<Record>, StoreError> {
        let query = sqlx::query_as::<_, (String, String, String)>(
            "select id, payload, checksum from records where id >= $1 and starts_with(id, $1) order by id",
        );
        let rows = self.connection().await?.run(|c| query.bind(prefix).fetch_all(c)).await?;
        Ok(rows.into_iter().map(|(id, payload, checksum)| Record { id, payload, checksum }).collect())
    }
}

fn with_one_byte_changed(payload: &str) -> String {
    let at = payload.char_indices().find(|(_, c)| c.is_ascii_alphanumeric());
    match at {
        Some((at, c)) => format!("{}{}{}", &payload[..at], if c == 'x' { 'y' } else { 'x' }, &payload[at + 1..]),
        None => format!("{payload}x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_sha_256() {
        assert_eq!(checksum("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn planted_corruption_changes_every_payload() {
        for payload in ["abc", "xbc", "", "ü", "{\"a\":1}"] {
            assert_ne!(with_one_byte_changed(payload), payload);
        }
    }

    #[test]
    fn unfit_records_are_refused() {
        let check = |id: &str, payload: &str| NewRecord { id: id.to_owned(), payload: payload.to_owned() }.check();
        assert!(check("a", "p").is_ok());
        assert!(check("", "p").is_err() && check("a\0", "p").is_err() && check("a", "\0").is_err());
        assert!(check("a", &"x".repeat(65_537)).is_err());
    }
}
