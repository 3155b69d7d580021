//! Forty tests under `#[sqlx::test]`, which migrates a database of its own for each.

macro_rules! tests {
    ($($name:ident)*) => {
        mod select {
            $(#[sqlx::test(migrator = "forty::MIGRATOR")]
            async fn $name(pool: sqlx::PgPool) -> sqlx::Result<()> {
                forty::select(&pool).await
            })*
        }
        mod insert {
            $(#[sqlx::test(migrator = "forty::MIGRATOR")]
            async fn $name(pool: sqlx::PgPool) -> sqlx::Result<()> {
                forty::insert(&pool).await
            })*
        }
    };
}

forty::forty!(tests);
