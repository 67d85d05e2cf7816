// What text of other people's files, hubs and programs looks like where it is shown: nothing in it steers a terminal,
// and no URL tells a password.

/**
 * Control characters but tab and line feed, separators of lines and paragraphs, and marks that turn the direction of
 * writing.
 */
// eslint-disable-next-line no-control-regex
const steering = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/**
 * The text with what could steer a terminal written as an escape: "\x1b[2J" becomes the seven characters "\u001b[2J".
 */
export function printable(text: string): string {
  return text.replace(steering, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** The same of a text in any language, which may need marks of direction and separators. */
export function withoutControls(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, printable);
}

/** The text without user names and passwords of URLs, and without the given secrets. */
export function withoutSecrets(text: string, ...secrets: readonly (string | undefined)[]): string {
  const shown = text.replace(/\b([a-z][a-z0-9+.-]{0,20}:\/\/)[^\s/?#'"<>]{1,500}@/gi, '$1***@');
  return secrets.reduce<string>((rest, secret) => (secret ? rest.replaceAll(secret, '***') : rest), shown);
}
