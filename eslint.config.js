import js from '@eslint/js';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', 'bench/peers/', '.tmp/', 'adapters/', 'tests/fixtures/'] },
  js.configs.recommended,
  ...tseslint.configs.strict,
  ...tseslint.configs.stylistic,
  {
    files: ['**/*.ts'],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            { from: 'package', name: ['test', 'it', 'describe', 'suite'], package: 'node:test' },
          ],
        },
      ],
      '@typescript-eslint/consistent-type-imports': ['error', { disallowTypeAnnotations: false }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-empty-function': 'off',
      '@typescript-eslint/unified-signatures': 'off',
      'max-len': [
        'error',
        { code: 120, ignoreStrings: true, ignoreTemplateLiterals: true, ignoreRegExpLiterals: true },
      ],
      eqeqeq: 'error',
    },
  },
  {
    // A failing assert without a message looks for its own source, which hangs in large files that were transpiled.
    files: ['tests/**/*.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: 'CallExpression[callee.object.name="assert"][callee.property.name="ok"][arguments.length=1]',
          message: 'Give assert.ok a message, or compare with assert.equal.',
        },
        {
          selector: 'CallExpression[callee.name="assert"][arguments.length=1]',
          message: 'Give assert a message, or compare with assert.equal.',
        },
      ],
    },
  },
  {
    // The library runs in a browser: Node's modules are imported where they are used, not at load time.
    files: ['src/**/*.ts'],
    ignores: ['src/**/*Node.ts', 'src/cli/**'],
    rules: { 'no-restricted-imports': ['error', { patterns: ['node:*'] }] },
  },
  {
    // A backend knows nothing of gradients.
    files: ['src/backends/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            'node:*',
            '**/autograd/*',
            '**/nn/*',
            '**/models/**',
            '**/reft/**',
            '**/train/**',
            '**/interchange/**',
          ],
        },
      ],
    },
  },
  {
    // Layers, models and edits work on any backend.
    files: ['nn', 'models', 'adapt', 'reft', 'peft', 'interchange', 'train'].map(folder => `src/${folder}/**/*.ts`),
    ignores: ['src/**/*Node.ts'],
    rules: {
      'no-restricted-imports': ['error', { patterns: ['node:*', '**/backends/cpu/*', '**/backends/webgpu/*'] }],
    },
  },
);
