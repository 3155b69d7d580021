drop table audit;
drop function audit_is_append_only();
