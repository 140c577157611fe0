/** What stands before the assertions of each generated file: rows to try the roles on, and how to act as a role. */
import { fixture, people } from '../../../tests/rls/support/fixture.ts'
import { attemptsOn, freshKey, freshName, namedRows, rowsToInsert } from './rows.ts'
import { insertRows, quoted } from './sql.ts'

/** People, rows and helpers, for assertions about these tables. */
export function preamble(tables: readonly string[]): string {
  const filled = tables.filter((table) => Object.hasOwn(fixture, table))
  if (filled.length === 0) return acting
  return [
    insertPeople(),
    ...filled.map(insertFixture),
    nameRows(filled),
    listAttempts(filled),
    acting,
    reaching,
  ]
    .join('\n\n')
}

function insertPeople(): string {
  const rows = Object.values(people).map((id) => ({ id, aud: 'authenticated', role: 'authenticated' }))
  return `-- Three people, and rows that are theirs. What is there already stays, and is not looked at.\n${
    insertRows('auth.users', rows, '\non conflict do nothing;')
  }`
}

function insertFixture(table: string): string {
  return insertRows(table, rowsToInsert(table), '\non conflict do nothing;')
}

function nameRows(tables: readonly string[]): string {
  const rows = tables.flatMap((table) => [
    ...namedRows(table).map(({ name, key }) => ({ relation: table, key, name })),
    { relation: table, key: freshKey(table), name: freshName },
  ])
  return `-- The names by which the assertions call these rows.
create temporary table fixture (
    position integer generated always as identity,
    relation text not null,
    key text not null,
    name text not null
) on commit drop;

${insertRows('fixture', rows, ';')}`
}

function listAttempts(tables: readonly string[]): string {
  const rows = tables.map(attemptsOn).map(
    ({ relation, found, inserting, updating, updated, beforeDelete }) => {
      const statements = [found, inserting, updating, updated].map((statement) => `$q$ ${statement} $q$`)
      const last = beforeDelete === undefined ? 'null' : quoted(beforeDelete)
      return `    (\n        ${[quoted(relation), ...statements, last].join(',\n        ')}\n    )`
    },
  )
  return `-- What is tried on each table. Nothing limits a statement but the rights of whoever runs it.
create temporary table attempts (
    relation text primary key,
    found text not null,
    inserting text not null,
    updating text not null,
    updated text not null,
    before_delete text
) on commit drop;

insert into attempts (relation, found, inserting, updating, updated, before_delete)
values
${rows.join(',\n')};`
}

const acting = `-- Takes on the role and the claims of somebody, until the block around it is taken back.
create function pg_temp.become(p_who text)
returns void
language plpgsql
as $$
declare
    v_role text := case when p_who in ('anon', 'service_role') then p_who else 'authenticated' end;
    v_claims jsonb := case p_who
        when 'owner' then '{"sub": "${people.owner}"}'
        when 'other' then '{"sub": "${people.other}"}'
        when 'admin' then '{"sub": "${people.admin}", "app_metadata": {"role": "admin"}}'
        else '{}'
    end::jsonb;
begin
    perform set_config('request.jwt.claims', (v_claims || jsonb_build_object('role', v_role))::text, true);
    perform set_config('role', v_role, true);
end;
$$;

-- Runs a statement as somebody, and takes back what it did.
create function pg_temp.run_as(p_who text, p_statement text)
returns void
language plpgsql
as $$
begin
    perform pg_temp.become(p_who);
    execute p_statement;
    raise exception using errcode = 'UNDO1';
exception
    when sqlstate 'UNDO1' then null;
end;
$$;`

const reaching =
  `-- Tries a command as somebody and takes it back: the names of the rows that are seen, or have changed.
create function pg_temp.reach(p_who text, p_command text, p_relation text, p_inserting text default null)
returns text[]
language plpgsql
as $$
declare
    v_self text := current_user;
    v_attempts attempts;
    v_keys text[];
begin
    select * into strict v_attempts from pg_temp.attempts where relation = p_relation;
    begin
        if p_command = 'delete' and v_attempts.before_delete is not null then
            execute v_attempts.before_delete;
        end if;
        perform pg_temp.become(p_who);
        case p_command
            when 'select' then execute v_attempts.found into v_keys;
            when 'insert' then execute coalesce(p_inserting, v_attempts.inserting);
            when 'update' then execute v_attempts.updating;
            when 'delete' then execute 'delete from ' || p_relation;
        end case;
        -- What a write did is asked with every right: who may write need not be able to read.
        perform set_config('role', v_self, true);
        case p_command
            when 'select' then null;
            when 'update' then execute v_attempts.updated into v_keys;
            else execute v_attempts.found into v_keys;
        end case;
        raise exception using errcode = 'UNDO1';
    exception
        when sqlstate 'UNDO1' then null;
    end;
    return array(
        select f.name from pg_temp.fixture as f
        where f.relation = p_relation
        and (f.name = '${freshName}') = (p_command = 'insert')
        and (f.key = any (coalesce(v_keys, '{}'))) = (p_command <> 'delete')
        order by f.position
    );
end;
$$;`
