insert into users (email, name) values ('a@b.c', 'Ada'), ('b@b.c', 'Bob');
insert into orders (user_id, total_cents) select id, 100 from users;
