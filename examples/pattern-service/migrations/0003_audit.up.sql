-- The audit trail: rows are added, and neither changed nor taken away.
create table if not exists audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    agent text not null,
    action text not null,
    outcome text not null
);
create index if not exists audit_agent_id on audit (agent, id desc);
create or replace function audit_is_append_only() returns trigger language plpgsql as
    $$ begin raise exception 'the audit trail is append-only' using errcode = 'insufficient_privilege'; end $$;
create or replace trigger audit_no_change before update or delete on audit
    for each row execute function audit_is_append_only();
create or replace trigger audit_no_truncate before truncate on audit
    for each statement execute function audit_is_append_only();
