/** The schema changes, and tables have partitions, children and triggers of their own: the trail keeps up by itself. */
import { beforeAll, describe, expect, test } from 'vitest'
import { changesOf, gaps, recorded } from '../support/auditProbe.ts'
import { freshDatabase, onEachPostgres } from '../support/database.ts'
import { openSql, type Sql } from '../support/sql.ts'

onEachPostgres('the trail', (pg) => {
  let admin: Sql
  let sql: Sql

  beforeAll(async () => {
    const database = await freshDatabase(pg.major)
    admin = openSql(database.adminUrl)
    sql = openSql(database.url)
  })

  test('has new tables of public from their first row on, and those of other schemas when they are enabled', async () => {
    await sql`create schema quiet`
    await sql`create table public.newborn (id int primary key)`
    await sql`create table quiet.unheard (id int primary key)`
    await sql`create table public.copied as select 1 as id`
    await sql`select 2 as id into public.selected`
    for (const table of ['public.newborn', 'quiet.unheard', 'public.copied', 'public.selected']) {
      await sql.unsafe(`insert into ${table} values (7)`)
    }
    expect(await changesOf(admin, 'public.newborn')).toEqual([['INSERT', '7', { new: { id: 7 } }]])
    expect(await changesOf(admin, 'quiet.unheard')).toEqual([])
    expect((await changesOf(admin, 'public.copied')).at(-1)).toEqual(['INSERT', null, { new: { id: 7 } }])
    expect((await changesOf(admin, 'public.selected')).at(-1)).toEqual(['INSERT', null, { new: { id: 7 } }])
  })

  test('follows a table through each change of its shape, in the transaction of the change', async () => {
    await sql`create table public.shaped (id int primary key, a text, b int)`
    await sql.begin(async (tx) => {
      await tx`insert into public.shaped values (1, 'a', 1)`
      await tx`alter table public.shaped rename column a to renamed`
      await tx`update public.shaped set renamed = 'b'`
      await tx`alter table public.shaped add column extra int default 5`
      await tx`update public.shaped set extra = 6`
      await tx`alter table public.shaped alter column b type text`
      await tx`update public.shaped set b = 'two'`
      await tx`alter table public.shaped drop column renamed`
      await tx`update public.shaped set b = 'three'`
      await tx`alter table public.shaped drop constraint shaped_pkey`
      await tx`alter table public.shaped add primary key (b)`
      await tx`update public.shaped set extra = 7`
      await tx`alter table public.shaped rename to reshaped`
      await tx`update public.reshaped set extra = 8`
      await tx`create schema elsewhere`
      await tx`alter table public.reshaped set schema elsewhere`
      await tx`update elsewhere.reshaped set extra = 9`
      await tx`alter schema elsewhere rename to farther`
      await tx`delete from farther.reshaped`
    })
    expect(await changesOf(admin, 'public.shaped')).toEqual([
      ['INSERT', '1', { new: { id: 1, a: 'a', b: 1 } }],
      ['UPDATE', '1', { old: { renamed: 'a' }, new: { id: 1, renamed: 'b' } }],
      ['UPDATE', '1', { old: { extra: 5 }, new: { id: 1, extra: 6 } }],
      ['UPDATE', '1', { old: { b: '1' }, new: { id: 1, b: 'two' } }],
      ['UPDATE', '1', { old: { b: 'two' }, new: { id: 1, b: 'three' } }],
      ['UPDATE', 'three', { old: { extra: 6 }, new: { b: 'three', extra: 7 } }],
    ])
    expect(await changesOf(admin, 'public.reshaped'))
      .toEqual([['UPDATE', 'three', { old: { extra: 7 }, new: { b: 'three', extra: 8 } }]])
    expect(await changesOf(admin, 'elsewhere.reshaped'))
      .toEqual([['UPDATE', 'three', { old: { extra: 8 }, new: { b: 'three', extra: 9 } }]])
    expect(await changesOf(admin, 'farther.reshaped'))
      .toEqual([['DELETE', 'three', { old: { id: 1, b: 'three', extra: 9 } }]])
  })

  test('keeps a column masked or left out under its new name', async () => {
    await sql`create table public.hiding (id int primary key, ssn text, noise int, password text)`
    await sql`select audit.enable('public.hiding', p_mask => '{ssn,password}', p_leave_out => '{noise}')`
    await sql`alter table public.hiding rename column ssn to number`
    await sql`alter table public.hiding rename column noise to static`
    await sql`alter table public.hiding rename column password to word`
    await sql`insert into public.hiding values (1, 'secret', 5, 'secret')`
    expect(await changesOf(admin, 'public.hiding'))
      .toEqual([['INSERT', '1', { new: { id: 1, number: '***', word: '***' } }]])
  })

  test('has a table that was dropped and made again', async () => {
    await sql`create table public.phoenix (id int primary key, a int)`
    await sql`insert into public.phoenix values (1, 1)`
    await sql`drop table public.phoenix`
    await sql`create table public.phoenix (b text, id int primary key)`
    await sql`insert into public.phoenix values ('b', 1)`
    expect(await changesOf(admin, 'public.phoenix')).toEqual([
      ['INSERT', '1', { new: { id: 1, a: 1 } }],
      ['INSERT', '1', { new: { id: 1, b: 'b' } }],
    ])
    const functions = await admin`
      select proname from pg_proc where pronamespace = 'audit'::regnamespace and proname ~ '^record_\\d+$'
        and proname not in (select 'record_' || id from audit.tables)`
    expect(functions).toHaveLength(0)
  })

  test('forgets a change of the schema that was rolled back', async () => {
    await sql`create table public.wavering (id int primary key, a int)`
    await sql.begin(async (tx) => {
      await tx`alter table public.wavering rename column a to b`
      await tx`insert into public.wavering values (1, 1)`
      throw new Error('on purpose')
    }).catch(() => {})
    await sql`insert into public.wavering values (2, 2)`
    expect(await changesOf(admin, 'public.wavering')).toEqual([['INSERT', '2', { new: { id: 2, a: 2 } }]])
    const ddl = await admin`
      select details from audit.database_changes
      where operation = 'DDL' and object_identity = 'public.wavering' and details #>> '{ddl,command}' = 'ALTER TABLE'`
    expect(ddl).toHaveLength(0)
  })

  test('puts back triggers that were dropped or switched off, and says so', async () => {
    await sql`create table public.meddled (id int primary key)`
    await sql`drop trigger audit_insert on public.meddled`
    await sql`insert into public.meddled values (1)`
    await sql`alter table public.meddled disable trigger audit_insert`
    await sql`insert into public.meddled values (2)`
    await sql`alter table public.meddled disable trigger all`
    await sql`insert into public.meddled values (3)`
    expect((await recorded(admin, 'public.meddled')).map(({ key }) => key)).toEqual(['1', '2', '3'])
    expect((await gaps(admin, 'public.meddled')).length).toBeGreaterThanOrEqual(3)
  })

  describe('of a partitioned table', () => {
    beforeAll(async () => {
      await sql.unsafe(`
        create table public.parts (id int, region text, n int, primary key (id, region)) partition by list (region);
        create table public.parts_a partition of public.parts for values in ('a');
        create table public.parts_b (n int, gone int, region text not null, id int not null);
        alter table public.parts_b drop column gone;
        alter table public.parts attach partition public.parts_b for values in ('b');
        create table public.parts_c partition of public.parts for values in ('c', 'd') partition by list (region);
        create table public.parts_c_c partition of public.parts_c for values in ('c')`)
    })

    test('has rows under its name, whichever table they were written to', async () => {
      const before = (await recorded(admin, 'public.parts')).length
      await sql`insert into public.parts values (1, 'a', 1), (2, 'b', 1), (3, 'c', 1)`
      await sql`insert into public.parts_b (id, region, n) values (4, 'b', 1)`
      await sql`update public.parts_c set n = 2`
      await sql`update public.parts set region = 'b', n = 9 where id in (1, 3)`
      await sql`delete from public.parts_b where id = 4`
      const changes = (await changesOf(admin, 'public.parts')).slice(before)
      expect(changes).toEqual([
        ['INSERT', '["1", "a"]', { new: { id: 1, region: 'a', n: 1 } }],
        ['INSERT', '["2", "b"]', { new: { id: 2, region: 'b', n: 1 } }],
        ['INSERT', '["3", "c"]', { new: { id: 3, region: 'c', n: 1 } }],
        ['INSERT', '["4", "b"]', { new: { id: 4, region: 'b', n: 1 } }],
        ['UPDATE', '["3", "c"]', { old: { n: 1 }, new: { id: 3, region: 'c', n: 2 } }],
        ['UPDATE', '["1", "b"]', { old: { region: 'a', n: 1 }, new: { id: 1, region: 'b', n: 9 } }],
        ['UPDATE', '["3", "b"]', { old: { region: 'c', n: 2 }, new: { id: 3, region: 'b', n: 9 } }],
        ['DELETE', '["4", "b"]', { old: { id: 4, region: 'b', n: 1 } }],
      ])
    })

    test('tells which partition was truncated', async () => {
      await sql`truncate public.parts_a`
      const [row] = await admin`
        select object_identity as object, details from audit.database_changes
        where operation = 'TRUNCATE' and table_name like 'parts%' order by id desc limit 1`
      expect(JSON.stringify(row)).toContain('parts_a')
    })

    test('has partitions that come later, and not those that left', async () => {
      await sql`create table public.parts_e partition of public.parts for values in ('e')`
      await sql`insert into public.parts_e values (5, 'e', 1)`
      await sql`insert into public.parts values (6, 'e', 1)`
      await sql`create schema if not exists aside`
      await sql`create table aside.parts_f (region text not null, n int, id int not null)`
      await sql`alter table public.parts attach partition aside.parts_f for values in ('f')`
      await sql`insert into aside.parts_f (id, region, n) values (7, 'f', 1)`
      const keys = (await recorded(admin, 'public.parts')).map(({ key }) => key)
      expect(keys).toEqual(expect.arrayContaining(['["5", "e"]', '["6", "e"]', '["7", "f"]']))
      await sql`alter table public.parts detach partition public.parts_e`
      await sql`insert into public.parts_e values (8, 'e', 1)`
      expect((await recorded(admin, 'public.parts_e')).map(({ key }) => key)).toEqual(['["8", "e"]'])
      expect(await gaps(admin, 'public.parts')).toEqual([])
    })

    test('never pairs a row with another one, where a trigger kept some from moving', async () => {
      await sql.unsafe(`
        create function public.keep_odd() returns trigger language plpgsql as
          $$ begin if new.id % 2 = 1 then return null; end if; return new; end $$;
        create table public.kept (id int, region text, n int, primary key (id, region)) partition by list (region);
        create table public.kept_a partition of public.kept for values in ('a');
        create table public.kept_b partition of public.kept for values in ('b');
        create trigger keep_odd before insert on public.kept_b for each row execute function public.keep_odd();
        insert into public.kept values (1, 'a', 1), (2, 'a', 2), (3, 'a', 3)`)
      const statements = [
        `update public.kept set region = 'b' where id in (1, 2)`,
        `update public.kept set region = 'b' where id = 3`,
      ]
      for (const statement of statements) await sql.unsafe(statement)
      expect(await sql`select id, region from public.kept`).toEqual([{ id: 2, region: 'b' }])
      // The rows that went away are recorded as that, or the statement is a gap: silence and wrong pairs are neither.
      const updates = (await recorded(admin, 'public.kept')).filter(({ operation }) => operation === 'UPDATE')
      expect(updates.filter(({ details: { row } }) => 'id' in row.old)).toEqual([])
      const told = (await recorded(admin, 'public.kept')).filter(({ operation }) => operation === 'DELETE')
      expect(told.length + (await gaps(admin, 'public.kept')).length).toBeGreaterThanOrEqual(2)
    })
  })

  test('of a table that others inherit from has what a statement changed in either', async () => {
    await sql`create table public.ancestor (id int primary key, v text)`
    await sql`create table public.heir (extra int, primary key (id)) inherits (public.ancestor)`
    await sql`insert into public.heir values (1, 'x', 7)`
    await sql`update public.ancestor set v = 'y'`
    await sql`update public.heir set extra = 8`
    await sql`delete from public.ancestor`
    expect(await changesOf(admin, 'public.heir')).toEqual([
      ['INSERT', '1', { new: { id: 1, v: 'x', extra: 7 } }],
      ['UPDATE', '1', { old: { extra: 7 }, new: { id: 1, extra: 8 } }],
    ])
    expect(await changesOf(admin, 'public.ancestor')).toEqual([
      ['UPDATE', '1', { old: { v: 'x' }, new: { id: 1, v: 'y' } }],
      ['DELETE', '1', { old: { id: 1, v: 'y' } }],
    ])
  })

  test('of a row that its own trigger writes again has both changes, the inner one first', async () => {
    await sql.unsafe(`
      create table public.slugged (id int primary key, name text, slug text);
      create function public.slug() returns trigger language plpgsql as
        $$ begin update public.slugged set slug = lower(new.name) where id = new.id; return null; end $$;
      create trigger slug after insert or update of name on public.slugged
        for each row execute function public.slug();
      insert into public.slugged (id, name) values (1, 'Ada');
      update public.slugged set name = 'Bea'`)
    // A statement is recorded when it is over, and what its triggers do is over before it.
    expect(await changesOf(admin, 'public.slugged')).toEqual([
      ['UPDATE', '1', { old: { slug: null }, new: { id: 1, slug: 'ada' } }],
      ['INSERT', '1', { new: { id: 1, name: 'Ada', slug: null } }],
      ['UPDATE', '1', { old: { slug: 'ada' }, new: { id: 1, slug: 'bea' } }],
      ['UPDATE', '1', { old: { name: 'Ada' }, new: { id: 1, name: 'Bea' } }],
    ])
  })

  test('of rows that go through views and rules has the tables below', async () => {
    await sql.unsafe(`
      create table public.below (id int primary key, v text);
      create view public.above as select * from public.below;
      insert into public.above values (1, 'a');
      update public.above set v = 'b';
      create table public.ruled (id int primary key);
      create rule twice as on insert to public.ruled do also insert into public.below values (new.id + 100, 'rule');
      insert into public.ruled values (1)`)
    expect((await changesOf(admin, 'public.below')).map((change) => (change as unknown[]).slice(0, 2)))
      .toEqual([['INSERT', '1'], ['UPDATE', '1'], ['INSERT', '101']])
    expect(await changesOf(admin, 'public.ruled')).toHaveLength(1)
  })
})
