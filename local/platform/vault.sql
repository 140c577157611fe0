-- What: a stand-in for Supabase Vault: vault.create_secret(), vault.update_secret(), view vault.decrypted_secrets.
-- Why: Vault has no package outside Supabase; secrets of cron jobs (project URL, keys) live there on a hosted project.
-- Who: `postgres` and `service_role`, by these functions and the view. The key is granted to nobody.

create schema if not exists vault;

-- One row. On a hosted project this key lies outside the database, where a dump does not take it along.
create table if not exists vault.root_key (
    only_one boolean not null default true,
    secret_key text not null default pg_catalog.encode(extensions.gen_random_bytes(32), 'base64'),
    constraint root_key_pkey primary key (only_one),
    constraint root_key_is_one_row check (only_one)
);

insert into vault.root_key default values on conflict do nothing;

create table if not exists vault.secrets (
    id uuid not null default pg_catalog.gen_random_uuid(),
    name text,
    description text not null default '',
    secret text not null,
    key_id uuid,
    nonce bytea default extensions.gen_random_bytes(16),
    created_at timestamptz not null default current_timestamp,
    updated_at timestamptz not null default current_timestamp,
    constraint secrets_pkey primary key (id)
);

comment on table vault.secrets is 'Table with encrypted `secret` column for storing sensitive information on disk.';

create unique index if not exists secrets_name_idx on vault.secrets (name) where name is not null;

create or replace function vault._encrypt(p_secret text)
returns text
language sql
volatile
security definer
set search_path = ''
as $$
    select pg_catalog.encode(
        extensions.pgp_sym_encrypt(p_secret, root_key.secret_key, 'cipher-algo=aes256, compress-algo=0'),
        'base64'
    )
    from vault.root_key
$$;

create or replace function vault._decrypt(p_ciphertext text)
returns text
language sql
stable
security definer
set search_path = ''
as $$
    select extensions.pgp_sym_decrypt(pg_catalog.decode(p_ciphertext, 'base64'), root_key.secret_key)
    from vault.root_key
$$;

create or replace view vault.decrypted_secrets as
select
    stored.id,
    stored.name,
    stored.description,
    stored.secret,
    vault._decrypt(stored.secret) as decrypted_secret,
    stored.key_id,
    stored.nonce,
    stored.created_at,
    stored.updated_at
from vault.secrets as stored;

-- Parameters are named as on a hosted project, for callers may name them.
create or replace function vault.create_secret(
    new_secret text,
    new_name text default null,
    new_description text default '',
    new_key_id uuid default null
)
returns uuid
language sql
volatile
security definer
set search_path = ''
as $$
    insert into vault.secrets (secret, name, description, key_id)
    values (vault._encrypt(new_secret), new_name, new_description, new_key_id)
    returning id
$$;

create or replace function vault.update_secret(
    secret_id uuid,
    new_secret text default null,
    new_name text default null,
    new_description text default null,
    new_key_id uuid default null
)
returns void
language sql
volatile
security definer
set search_path = ''
as $$
    update vault.secrets as stored
    set secret = case when new_secret is null then stored.secret else vault._encrypt(new_secret) end,
        name = coalesce(new_name, stored.name),
        description = coalesce(new_description, stored.description),
        key_id = coalesce(new_key_id, stored.key_id),
        updated_at = pg_catalog.now()
    where stored.id = secret_id
$$;

revoke all on all functions in schema vault from public;

grant usage on schema vault to postgres, service_role;

grant select, delete on vault.secrets, vault.decrypted_secrets to postgres, service_role;

grant execute on function vault.create_secret(text, text, text, uuid) to postgres, service_role;

grant execute on function vault.update_secret(uuid, text, text, text, uuid) to postgres, service_role;

grant execute on function vault._decrypt(text) to postgres, service_role;

select pg_temp.stand_in_extension('supabase_vault', '0.3.1', 'vault', 'vault');
