drop table orders;
drop table users;
