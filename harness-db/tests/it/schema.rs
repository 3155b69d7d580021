//! The schema as data, its difference, and every check with a planted defect.

use harness_db::postgres::schema::ConstraintKind;
use harness_db::{CoreResult, ErrorKind, Schema, Template, rows, sqlx};

static SHOP: Template = Template::sql(&[
    "create type mood as enum ('glad', 'sad')",
    "create domain percent as int check (value between 0 and 100)",
    "create table orgs(id bigint generated always as identity primary key, name text not null)",
    "create table users(id bigserial primary key, org_id bigint not null references orgs(id), email text not null unique, \
     mood mood default 'glad', share percent, twice bigint generated always as (org_id * 2) stored, note varchar(80), \
     at timestamptz(3) not null default now(), constraint share_small check (share < 90))",
    "create index users_by_org on users(org_id)",
    "create index users_sad on users(email) where mood = 'sad'",
    "comment on table users is 'who'",
    "comment on column users.email is 'login'",
    "create view sad_users as select id, email from users where mood = 'sad'",
    "create sequence tickets start 7",
    "create function total(a int, b int) returns int language sql immutable strict as 'select a + b'",
    "create function touch() returns trigger language plpgsql as $$ begin new.note = 'x'; return new; end $$",
    "create trigger users_touch before update on users for each row execute function touch()",
    "alter table users enable row level security",
    "create policy own_org on users for select using (org_id = current_setting('app.org')::bigint)",
    "create table events(at date not null, kind text, primary key (at, kind)) partition by range (at)",
    "create table events_2024 partition of events for values from ('2024-01-01') to ('2025-01-01')",
    "create schema audit",
    "create table audit.log(id int primary key)",
]);

/// A check, and the SQL after which it must fail, with words that the message must show.
type Case = (&'static str, fn(&Schema) -> CoreResult, &'static str, &'static str);

const CASES: &[Case] = &[
    ("table", |s| s.table("users").map(drop), "alter table users rename to usres", "did you mean `usres`?"),
    (
        "column",
        |s| s.table("users")?.column("email").map(drop),
        "alter table users rename email to emial",
        "did you mean `emial`?",
    ),
    (
        "columns_are",
        |s| s.table("orgs")?.columns_are(["id", "name"]).map(drop),
        "alter table orgs add x int",
        "they are id, name, x",
    ),
    (
        "type_is",
        |s| s.table("users")?.column("at")?.type_is("timestamptz(3)").map(drop),
        "alter table users alter at type date",
        "it is date not null",
    ),
    (
        "not_null",
        |s| s.table("users")?.column("email")?.not_null().map(drop),
        "alter table users alter email drop not null",
        "it is text",
    ),
    (
        "nullable",
        |s| s.table("users")?.column("note")?.nullable().map(drop),
        "alter table users alter note set not null",
        "may not be null",
    ),
    (
        "default_is",
        |s| s.table("users")?.column("at")?.default_is("now()").map(drop),
        "alter table users alter at drop default",
        "has not the default",
    ),
    (
        "no_default",
        |s| s.table("users")?.column("note")?.no_default().map(drop),
        "alter table users alter note set default ''",
        "has a default",
    ),
    (
        "identity",
        |s| s.table("orgs")?.column("id")?.identity().map(drop),
        "alter table orgs alter id drop identity",
        "is no identity",
    ),
    (
        "generated_as",
        |s| s.table("users")?.column("twice")?.generated_as("(org_id * 2)").map(drop),
        "alter table users alter twice drop expression",
        "is not generated",
    ),
    (
        "unique",
        |s| s.table("users")?.column("email")?.unique().map(drop),
        "alter table users drop constraint users_email_key",
        "nothing holds `users` unique on (email)",
    ),
    (
        "primary_key",
        |s| s.table("users")?.column("id")?.primary_key().map(drop),
        "alter table users drop constraint users_pkey",
        "it has none",
    ),
    (
        "references",
        |s| s.table("users")?.column("org_id")?.references("orgs", "id").map(drop),
        "alter table users drop constraint users_org_id_fkey",
        "does not reference orgs.id",
    ),
    (
        "indexed",
        |s| s.table("users")?.column("org_id")?.indexed().map(drop),
        "drop index users_by_org",
        "no index begins with column `users.org_id`",
    ),
    (
        "index",
        |s| s.table("users")?.index("users_by_org").map(drop),
        "update pg_index set indisvalid = false where indexrelid = 'users_by_org'::regclass",
        "is invalid",
    ),
    (
        "column comment",
        |s| s.table("users")?.column("email")?.has_comment().map(drop),
        "comment on column users.email is null",
        "has no comment",
    ),
    (
        "check_constraint",
        |s| s.table("users")?.check_constraint("share_small").map(drop),
        "alter table users drop constraint share_small",
        "there is no constraint `users.share_small`",
    ),
    (
        "constraint kind",
        |s| s.table("users")?.constraint("users_email_key", ConstraintKind::Unique).map(drop),
        "alter table users drop constraint users_email_key, add constraint users_email_key check (email <> '')",
        "is not a Unique",
    ),
    (
        "validated constraint",
        |s| s.table("users")?.check_constraint("share_small").map(drop),
        "alter table users drop constraint share_small, add constraint share_small check (share < 9) not valid",
        "is not valid",
    ),
    (
        "trigger",
        |s| s.table("users")?.trigger("users_touch").map(drop),
        "alter table users disable trigger users_touch",
        "is disabled",
    ),
    (
        "policy",
        |s| s.table("users")?.policy("own_org")?.command_is("select")?.binds("app").map(drop),
        "alter table users disable row level security",
        "row security is off",
    ),
    (
        "policy command",
        |s| s.table("users")?.policy("own_org")?.command_is("select").map(drop),
        "drop policy own_org on users; create policy own_org on users using (true)",
        "is not for select",
    ),
    (
        "owner_is",
        |s| s.table("users")?.owner_is("postgres").map(drop),
        "alter table users owner to pg_monitor",
        "its owner is pg_monitor",
    ),
    (
        "table comment",
        |s| s.table("users")?.has_comment().map(drop),
        "comment on table users is null",
        "has no comment",
    ),
    (
        "partitioned_by",
        |s| s.table("events")?.partitioned_by("RANGE (at)").map(drop),
        "drop table events; create table events(at date)",
        "it is a table",
    ),
    (
        "tables_are",
        |s| s.tables_are(["orgs", "users", "events", "events_2024", "audit.log"]).map(drop),
        "create table stray(id int)",
        "beyond: stray",
    ),
    ("views_are", |s| s.views_are(["sad_users"]).map(drop), "drop view sad_users", "missing: sad_users"),
    (
        "sequences_are",
        |s| s.sequences_are(["tickets", "users_id_seq"]).map(drop),
        "drop sequence tickets",
        "missing: tickets",
    ),
    (
        "functions_are",
        |s| s.functions_are(["total(integer, integer)", "touch()"]).map(drop),
        "create function stray() returns int language sql as 'select 1'",
        "beyond: stray()",
    ),
    (
        "extensions_are",
        |s| s.extensions_are(["plpgsql"]).map(drop),
        "drop extension plpgsql cascade",
        "missing: plpgsql",
    ),
    (
        "enum_labels",
        |s| s.enum_labels("mood", ["glad", "sad"]).map(drop),
        "alter type mood add value 'calm' before 'sad'",
        "glad, calm, sad",
    ),
    (
        "every_foreign_key_is_indexed",
        |s| s.every_foreign_key_is_indexed().map(drop),
        "drop index users_by_org",
        "create index on users (org_id)",
    ),
    (
        "every_table_has_a_primary_key",
        |s| s.every_table_has_a_primary_key().map(drop),
        "create table stray(id int)",
        "stray",
    ),
    (
        "no_invalid_indexes",
        |s| s.no_invalid_indexes().map(drop),
        "update pg_index set indisvalid = false where indexrelid = 'users_by_org'::regclass",
        "users_by_org",
    ),
    (
        "no_unvalidated_constraints",
        |s| s.no_unvalidated_constraints().map(drop),
        "alter table users add constraint late check (note <> '') not valid",
        "users.late",
    ),
];

#[tokio::test]
async fn each_check_holds_until_its_planted_defect() -> harness_db::Result {
    let db = SHOP.superuser().database().await?;
    let sound = db.schema().await?;
    for (name, check, plant, words) in CASES {
        check(&sound).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let mut session = db.pool().begin().await?;
        let planted = sqlx::raw_sql(sqlx::AssertSqlSafe(*plant)).execute(&mut *session).await;
        planted.unwrap_or_else(|error| panic!("{plant}: {error}"));
        let broken = Schema::read(&mut session).await?;
        session.rollback().await?;
        let error = check(&broken).err().unwrap_or_else(|| panic!("{name} did not see: {plant}"));
        assert_eq!(error.kind(), ErrorKind::Assertion, "{name}: {error:?}");
        assert!(format!("{error:?}").contains(words), "{name}: {error:?}");
        assert_ne!(sound.digest(), broken.digest(), "{name} is no part of the digest: {plant}");
    }
    sound.same_as(&db.schema().await?)?;
    Ok(())
}

#[tokio::test]
async fn difference_names_each_object_with_both_definitions() -> harness_db::Result {
    let (a, b) = (SHOP.database().await?, SHOP.database().await?);
    let sound = a.schema().await?;
    assert!(sound.diff(&b.schema().await?).is_empty() && sound.digest() == b.schema().await?.digest());
    sqlx::raw_sql(
        "alter table users alter note type varchar(9); drop index users_sad; alter sequence tickets increment 2",
    )
    .execute(b.pool())
    .await?;
    let diff = sound.diff(&b.schema().await?);
    let text = diff.to_string();
    for part in [
        "column users.note\n  - character varying(80)\n  + character varying(9)",
        "index users.users_sad\n  - CREATE INDEX users_sad",
        "sequence tickets\n  - bigint start 7 increment 1",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(diff.first().map(|change| change.name.as_str()), Some("users.note"), "{text}");
    Ok(())
}

#[tokio::test]
async fn privileges_are_those_a_role_really_has() -> harness_db::Result {
    let db = SHOP.superuser().database().await?;
    let (role, group) = (format!("{}_app", db.name()), format!("{}_group", db.name()));
    let make = format!(
        "create role {role}; create role {group}; grant {group} to {role}; grant select on users to {role}; grant update on users to {group}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(db.pool()).await?;
    let schema = db.schema().await?;
    let app = schema.table("users")?.privileges(&role)?;
    let judged = app.can("select").and_then(|app| app.can("UPDATE")).and_then(|app| app.cannot("delete")).map(drop);
    let planted = [app.can("delete").map(drop), app.cannot("update").map(drop)];
    let misspelt = app.cannot("drop").map(drop);
    let nobody = schema.table("users")?.privileges("nobody_at_all").map(drop);
    let row_refused = db.refuses("delete from users").as_role(&role).with("insufficient_privilege").await;
    // With another organisation's setting the policy hides the row.
    sqlx::raw_sql("insert into orgs(name) values ('o'); insert into users(org_id, email) values (1, 'a@b.c')")
        .execute(db.pool())
        .await?;
    let own = db.rows("select email from users").as_role(&role).with_setting("app.org", "1").await;
    let other = db.rows("select email from users").as_role(&role).with_setting("app.org", "2").await;
    let drop_roles = format!("drop owned by {role}, {group}; drop role {role}, {group}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop_roles)).execute(db.pool()).await?;
    judged?;
    row_refused?;
    own?.is_list(rows![["a@b.c"]])?;
    other?.is_empty()?;
    for planted in planted {
        assert_eq!(planted.unwrap_err().kind(), ErrorKind::Assertion);
    }
    assert_eq!(misspelt.unwrap_err().kind(), ErrorKind::Config, "a misspelt privilege would be lacked for ever");
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::Assertion);
    Ok(())
}

#[tokio::test]
async fn empty_schema_is_no_evidence() -> harness_db::Result {
    let schema = harness_db::postgres().await?.schema().await?;
    for nothing in [
        schema.every_foreign_key_is_indexed().map(drop),
        schema.every_table_has_a_primary_key().map(drop),
        schema.no_invalid_indexes().map(drop),
        schema.no_unvalidated_constraints().map(drop),
    ] {
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::NoEvidence);
    }
    Ok(())
}
