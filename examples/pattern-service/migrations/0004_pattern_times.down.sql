set local lock_timeout = '2s';
alter table patterns drop column updated_at;
