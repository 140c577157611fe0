import { expect, test } from 'vitest'
import { fileLength, links, setAsideTests } from '../../../tools/checks/text.ts'
import { scratchProject } from './scratchProject.ts'

test('files above 400 lines are named, generated ones are not', async () => {
  const lines = (count: number) => 'x\n'.repeat(count)
  const project = await scratchProject({
    'local/fits.ts': lines(400),
    'local/long.ts': lines(401),
    'supabase/migrations/1_long.sql': lines(500),
    'supabase/functions/_shared/db/database.types.ts': lines(5_000),
  })
  expect((await fileLength.find(project)).map(({ where, message }) => `${where} ${message}`)).toEqual([
    'local/long.ts has 401 lines, more than 400',
    'supabase/migrations/1_long.sql has 500 lines, more than 400',
  ])
})

test('links between pages point to files and headings that exist', async () => {
  const project = await scratchProject({
    'README.md': [
      '[page](docs/page.md), [heading](docs/page.md#how-it-ends-1), [self](#here), [web](https://example.com/x.md)',
      '# Here',
      '[gone](docs/gone.md)',
      '[no heading](docs/page.md#nowhere)',
      '`[code](not-a-link.md)`',
      '```',
      '[example](in-a-block.md)',
      '```',
      '[reference]: docs/missing.md',
    ].join('\n'),
    'docs/page.md': '## How it ends?\n\n## How it ends?\n\n[up](../README.md)\n',
    'node_modules/some/README.md': '[broken](nowhere.md)\n',
  })
  expect((await links.find(project)).map(({ where, message }) => `${where} ${message}`)).toEqual([
    'README.md:3 docs/gone.md: there is no such file',
    'README.md:4 docs/page.md#nowhere: there is no such heading',
    'README.md:9 docs/missing.md: there is no such file',
  ])
})

test('a test that is set aside or singled out is named', async () => {
  // Put together here, so that this file is not found itself.
  const set = (name: string) => `test.${name}('x', () => {})`
  const project = await scratchProject({
    'tests/unit/a.test.ts': [set('only'), set('skip'), set('each'), set('skipIf'), set('todo')].join('\n'),
  })
  expect((await setAsideTests.find(project)).map(({ where, message }) => `${where} ${message}`)).toEqual([
    'tests/unit/a.test.ts:1 .only',
    'tests/unit/a.test.ts:2 .skip',
    'tests/unit/a.test.ts:5 .todo',
  ])
})
