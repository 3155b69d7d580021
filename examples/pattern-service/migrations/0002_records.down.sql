drop table accounts;
drop table records;
