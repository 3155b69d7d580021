-- What agents keep, and the accounts they move amounts between.
create table if not exists records (
    id text collate "C" primary key,
    payload text not null,
    checksum text not null,
    created_at timestamptz not null default now()
);
create table if not exists accounts (
    id text collate "C" primary key,
    balance bigint not null check (balance >= 0)
);
insert into accounts select 'account-' || n, 1000000 from generate_series(1, 10) n on conflict do nothing;
