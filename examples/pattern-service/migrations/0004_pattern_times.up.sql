-- When a pattern was changed last. The default is the same for all rows, so that none is written anew.
set local lock_timeout = '2s';
alter table patterns add column if not exists updated_at timestamptz not null default now();
