//! Forty tests on databases of this house.

use harness_db::Template;

static SCHEMA: Template = Template::migrations(forty::MIGRATIONS);

macro_rules! tests {
    ($($name:ident)*) => {
        mod select {
            $(#[tokio::test]
            async fn $name() -> harness_db::Result {
                let db = super::SCHEMA.database().await?;
                Ok(forty::select(db.pool()).await?)
            })*
        }
        mod insert {
            $(#[tokio::test]
            async fn $name() -> harness_db::Result {
                let db = super::SCHEMA.database().await?;
                Ok(forty::insert(db.pool()).await?)
            })*
        }
    };
}

forty::forty!(tests);
