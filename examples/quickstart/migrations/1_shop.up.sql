create table users (
  id bigint generated always as identity primary key,
  email text not null constraint users_email_key unique
);
create table orders (
  id bigint generated always as identity primary key,
  user_id bigint not null references users (id),
  cents bigint not null constraint orders_cents_check check (cents >= 0)
);
create index orders_user_id_idx on orders (user_id);
