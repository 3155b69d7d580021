//! What the forty tests share: the migrations, the two bodies, and forty names.

use sqlx::PgPool;

include!(concat!(env!("OUT_DIR"), "/migrator.rs"));

/// The same migrations as files.
pub const MIGRATIONS: &str = env!("FORTY_MIGRATIONS");

/// Reads only.
///
/// # Errors
/// What the server says.
pub async fn select(pool: &PgPool) -> sqlx::Result<()> {
    let rows: i64 = sqlx::query_scalar("select count(*) from t_01").fetch_one(pool).await?;
    assert_eq!(rows, 0, "the database was not clean");
    Ok(())
}

/// Writes a row that would be in the way of the next test in the same database.
///
/// # Errors
/// What the server says.
pub async fn insert(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("insert into t_01(id, name) values (1, 'one')").execute(pool).await?;
    let rows: i64 = sqlx::query_scalar("select count(*) from t_01").fetch_one(pool).await?;
    assert_eq!(rows, 1, "the database was not clean");
    Ok(())
}

/// Calls a macro with forty names.
#[macro_export]
macro_rules! forty {
    ($one:ident) => {
        $one!(
            t01 t02 t03 t04 t05 t06 t07 t08 t09 t10 t11 t12 t13 t14 t15 t16 t17 t18 t19 t20
            t21 t22 t23 t24 t25 t26 t27 t28 t29 t30 t31 t32 t33 t34 t35 t36 t37 t38 t39 t40
        );
    };
}
